"""``python -m flows.curate`` before Prefect is imported: its options, its help, and the user's mistakes."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from assay.card_warnings import why_unknown
from assay.cluster import ClusterOptions, check_options, cluster_of
from assay.config import RunOptions, Settings
from assay.deployed import Places, model_named, places
from assay.disk import full_disk_named
from assay.errors import UserMistake
from assay.export import check_exports
from assay.export.folder import OutputFolder
from assay.home import Home
from assay.models import find_model
from assay.regular import why_not_regular
from assay.releases import next_release
from assay.rewards.protocol import ModelSpec
from assay.rules import Rules, parse_rules
from assay.s3 import is_remote
from assay.scalar import parse_weights
from assay.segments import check_store
from flows.command_line import DeploymentName
from flows.console import current
from flows.launch import Command, Elsewhere


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run's options, understood."""

    settings: Settings
    home: Home
    model: ModelSpec
    rules: Rules
    output: OutputFolder
    places: Places
    cluster: ClusterOptions


def prepare(options: RunOptions, settings: Settings, *, deployed: bool = False) -> Prepared:
    """The options, understood; UserMistake for the first that cannot be carried out. Cheap to repeat.

    What a ``deployed`` run may name is up to the operator.
    """
    if is_remote(options.output):
        raise UserMistake(
            f"--output {options.output}: results are written to a folder of this machine; name one, and copy "
            "it to S3 once the run has ended"
        )
    where = places(options.input, options.output, settings, deployed=deployed)
    _check_inputs(where.inputs)
    home = settings.opened_home()
    check_store(home)
    named = model_named(options.model, settings) if deployed else options.model
    cluster = cluster_of(settings, options.workers)
    if named not in settings.endpoints() and options.stop_after != "convert":
        # Before a model is fetched from the Hub, which may take an hour.
        check_options(cluster)
    with full_disk_named(home.root):
        model = find_model(
            named,
            settings=settings,
            over_length=options.over_length,
            dtype=options.dtype,
            revision=options.revision,
            family=options.family,
            read_at=options.read_at,
            add_bos=options.add_bos,
            attributes=options.attributes,
            max_tokens=options.max_tokens,
            weights=parse_weights(options.weights) if options.weights else None,
            digest_cache=home.model_digests,
        )
    _check_stop(options)
    rules = parse_rules(
        options.keep,
        attributes=model.columns,
        flags=why_unknown(model),
        allow_cross_prompt=options.allow_cross_prompt,
    )
    if options.stop_after is None:
        check_exports(options.export, model.columns)
    output = OutputFolder(_release(where.output, options) if options.release else where.output)
    output.check()
    return Prepared(settings, home, model, rules, output, where, cluster)


def _release(folder: str, options: RunOptions) -> Path:
    if options.limit is not None or options.stop_after is not None:
        raise UserMistake("--release: is of all that is new; leave out --limit and --stop-after")
    return next_release(Path(folder), datetime.now(UTC).date())


def _check_stop(options: RunOptions) -> None:
    """A run that stops early neither judges by rules nor writes exports, and must not seem to have."""
    if options.stop_after is None:
        return
    exports = RunOptions.model_fields["export"].default
    unused = [f"--keep {rule!r}" for rule in options.keep]
    if options.export != exports:
        unused.append(f"--export {' '.join(options.export)}")
    if unused:
        raise UserMistake(
            f"--stop-after {options.stop_after} comes before {' and '.join(unused)} would be used. Leave out "
            "the one or the other."
        )


def _check_inputs(inputs: list[str]) -> None:
    """What can be told without reading a file; the ingest stage looks again, and into the files."""
    for given in inputs:
        if not given:
            raise UserMistake("--input '': is empty. Name a file, a folder or a glob.")
        if not is_remote(given) and not glob.has_magic(given) and not os.path.exists(given):
            raise UserMistake(f"{given}: there is no such file or folder.")
        if os.path.exists(given) and not os.path.isdir(given) and (why := why_not_regular(given)):
            raise UserMistake(f"{given}: {why}; only regular files are read.")


_EXAMPLES = """\
examples:
  python -m flows.curate --config samples/demo.yaml
  python -m flows.curate --input 'chats/*.jsonl' --output runs/chats
  python -m flows.curate --input chats.jsonl.gz --output runs/good \\
      --keep 'helpfulness >= 2.5' --keep 'toxicity < 1' --export steerlm messages
  python -m flows.curate --input chats.jsonl --output runs/chats --dry-run

exit codes:
  0    finished, whether or not records were quarantined
  1    a fault, an input that is cut short or damaged, or none of whose records
       could be used
  2    a mistake in what was asked for, found before any work
  75   stopped early; the same command goes on from there
  130  Ctrl-C, 143 SIGTERM; the same command goes on from there

ASSAY_HOME (default: the user's cache folder) keeps scores and converted
records for later runs. PREFECT_API_URL names a Prefect server to report to;
without one a run brings its own.
"""


class CommandOptions(RunOptions):
    """What the command line takes: a run's options, and who does it."""

    deployment: DeploymentName = None

    def of_the_run(self) -> RunOptions:
        """The options without who does it."""
        return RunOptions(**self.model_dump(exclude={"deployment"}))


def _elsewhere(options: CommandOptions) -> Elsewhere | None:
    if options.deployment is None:
        return None
    asked = options.model_dump(mode="json", exclude={"deployment"}, exclude_unset=True)
    return Elsewhere("curate", options.deployment, {"options": asked})


def _flow() -> Callable[[CommandOptions], Mapping[str, Any]]:
    curate = import_module("flows.curate").curate
    carried_out = import_module("flows.outcome").carried_out
    return lambda options: carried_out(curate, options.of_the_run(), say=current().say)


COMMAND = Command(
    program="python -m flows.curate",
    summary="Rate every assistant turn of chat data with a reward model, keep the records that pass, and "
    "write labelled training files.",
    examples=_EXAMPLES,
    options=CommandOptions,
    check=prepare,
    flow=_flow,
    elsewhere=_elsewhere,
)
