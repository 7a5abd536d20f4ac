"""A run's options → what each stage is given, or the user's first mistake. Needs no Prefect."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from assay.config.deployed import Places, model_named, places
from assay.config.options import RunOptions
from assay.config.resolve import cluster_of, models_of
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.export import DEFAULT_EXPORTS, check_exports
from assay.export.folder import OutputFolder
from assay.read.formats import Names, parse_names
from assay.read.not_chat import why_file_is_no_chat
from assay.read.releases import next_release
from assay.rewards.find import find_model
from assay.rewards.spec import ModelSpec
from assay.score.card_warnings import why_unknown
from assay.score.segments import check_store
from assay.score.workers.cluster import ClusterOptions, check_options
from assay.select.rules import Rules, parse_rules
from assay.storage.addresses import is_remote
from assay.storage.disk import full_disk_named
from assay.storage.home import Home
from assay.storage.regular import why_not_regular


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the stages of a run are given."""

    settings: Settings
    home: Home
    model: ModelSpec
    rules: Rules
    output: OutputFolder
    places: Places
    cluster: ClusterOptions
    names: Names
    """What the user maps."""


def prepare(options: RunOptions, settings: Settings, *, deployed: bool = False) -> Prepared:
    """What the stages are given for these options. UserMistake for the first option that cannot work.

    Cheap to repeat. In a ``deployed`` run, options name only what the operator allows.
    """
    if is_remote(options.output):
        raise UserMistake(
            f"--output {options.output}: results are written to a folder of this machine; name one, and copy "
            "it elsewhere once the run has ended"
        )
    names = parse_names(options.map, options.map_role)
    where = places(options.input, options.output, settings, deployed=deployed)
    _check_inputs(where.inputs)
    home = settings.opened_home()
    check_store(home)
    named = model_named(options.model, settings) if deployed else options.model
    cluster = cluster_of(settings, options.workers)
    if named not in settings.endpoints() and options.stop_after != "convert":
        # Check this before a model is fetched from the Hub, which may take an hour.
        check_options(cluster)
    with full_disk_named(home.root):
        model = find_model(
            named, models_of(settings), options.of_the_model(), digest_cache=home.model_digests
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
    return Prepared(settings, home, model, rules, output, where, cluster, names)


def _release(folder: str, options: RunOptions) -> Path:
    if options.limit is not None or options.stop_after is not None:
        raise UserMistake("--release: is of all that is new; leave out --limit and --stop-after")
    return next_release(Path(folder), datetime.now(UTC).date())


def _check_stop(options: RunOptions) -> None:
    """Refuse rules and exports in a run that stops before they are used."""
    if options.stop_after is None:
        return
    unused = [f"--keep {rule!r}" for rule in options.keep]
    if options.export != list(DEFAULT_EXPORTS):
        unused.append(f"--export {' '.join(options.export)}")
    if unused:
        raise UserMistake(
            f"--stop-after {options.stop_after} stops before {' and '.join(unused)} would be used. Leave out "
            "the one or the other."
        )


def _check_inputs(inputs: list[str]) -> None:
    """Refuse what an input's name or first bytes show to be wrong. The ingest stage checks again."""
    for given in inputs:
        if not given:
            raise UserMistake("--input '': is empty. Name a file, a folder or a glob.")
        if not is_remote(given) and not glob.has_magic(given) and not os.path.exists(given):
            raise UserMistake(f"{given}: there is no such file or folder.")
        if not os.path.exists(given) or os.path.isdir(given):
            continue
        if why := why_not_regular(given):
            raise UserMistake(f"{given}: {why}; only regular files are read.")
        try:
            refused = why_file_is_no_chat(given)
        except OSError as error:
            raise UserMistake(f"{given}: cannot be read: {error.strerror or error}") from error
        if refused:
            raise UserMistake(f"{given}: {refused}")
