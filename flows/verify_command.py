"""``python -m flows.verify``, and what the flow of that name does: options, checks, how they are shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Group
from rich.table import Table
from rich.text import Text

from assay.cluster import check_options, cluster_of
from assay.config import (
    MODEL_IN_FORM,
    AddBos,
    CommandLine,
    FamilyName,
    Listed,
    ReadAt,
    Settings,
    in_form,
    in_this_order,
)
from assay.deployed import golden_places, model_named
from assay.errors import AssayError, UserMistake
from assay.models import find_model
from assay.private import private
from assay.rewards.protocol import ModelSpec
from assay.rewards.remote.endpoints import ReadBlock
from assay.scratch import torch_in_own_folder
from assay.terminal import printable
from assay.verification import Check, check_golden, read_golden, record, verify, verify_service
from assay.wording import counted
from flows.command_line import DeploymentName, parse
from flows.console import Console, opened
from flows.launch import keep_out_of_workers
from flows.signals import INTERRUPTED, stopping_on_signals

_MODEL = "the reward model"
_WORK = "what is done"

_EXAMPLES = """\
examples:
  python -m flows.verify starter
  python -m flows.verify nvidia/Qwen-2.5-Nemotron-32B-Reward --dtype float16
  python -m flows.verify starter --record golden.json
  python -m flows.verify starter --check golden.json
  python -m flows.verify judge --deployment verify-gpu

exit codes:
  0    every check that applies has passed
  1    one has not, or the model cannot be loaded
  2    a mistake in what was asked for
"""


class VerifyOptions(BaseModel):
    """What a run of ``flows.verify`` is asked to do."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=in_this_order)

    model: Annotated[
        str,
        Field(
            title="Reward model",
            description="A model of the catalog by name, a Hub id, a folder, or a service of the operator's "
            "list. May be given first, alone.",
            json_schema_extra=in_form(f"{MODEL_IN_FORM}."),
            min_length=1,
        ),
        CommandLine(_MODEL, "MODEL"),
    ]
    revision: Annotated[
        str | None,
        Field(title="Revision", description="Branch, tag or commit of a model on the Hub."),
        CommandLine(_MODEL, "COMMIT"),
    ] = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Field(
            title="Number format",
            description="What the model computes in; unless given, what its card says, or float32.",
        ),
        CommandLine(_MODEL),
    ] = None
    family: FamilyName = None
    read_at: ReadAt = None
    add_bos: AddBos = None
    attributes: Annotated[
        list[str],
        Listed,
        Field(
            title="Names of the outputs",
            description="What each output rates, where config.json does not say.",
        ),
        CommandLine(_MODEL, "NAME"),
    ] = []
    against: Annotated[
        str | None,
        Field(
            title="Compare with",
            description="Of a service: the same model on this machine, whose scores are compared.",
            json_schema_extra=in_form(
                "Of a service: the same model on the worker's machine, by name, whose scores are compared."
            ),
        ),
        CommandLine(_MODEL, "MODEL"),
    ] = None
    workers: Annotated[
        int,
        Field(
            title="Workers",
            description="Dask workers whose scores are compared: started here, or the operator's.",
            ge=1,
        ),
        CommandLine(_WORK, "N"),
    ] = 2
    record: Annotated[
        str | None,
        Field(
            title="Record golden rows",
            description="Do only this: write golden rows to a file, which are conversations, their scores, "
            "and what made them.",
            json_schema_extra=in_form(
                "Do only this: write golden rows (conversations, their scores, and what made them) to a file "
                "below a folder that the operator opened for results, such as results/golden.json."
            ),
            min_length=1,
        ),
        CommandLine(_WORK, "FILE"),
    ] = None
    check: Annotated[
        str | None,
        Field(
            title="Check golden rows",
            description="Do only this: compare with golden rows that were recorded before, or elsewhere.",
            json_schema_extra=in_form(
                "Do only this: compare with golden rows that were recorded before, or elsewhere: a file "
                "below a folder that the operator opened."
            ),
            min_length=1,
        ),
        CommandLine(_WORK, "FILE"),
    ] = None


class VerifyCommandOptions(VerifyOptions):
    """What the command line takes: a run's options, and who does it."""

    deployment: DeploymentName = None


def checked(
    options: VerifyOptions,
    settings: Settings,
    console: Console,
    *,
    deployed: bool = False,
    read_block: ReadBlock | None = None,
) -> list[Check]:
    """What was measured. With ``record`` or ``check`` only that is done.

    What a ``deployed`` run may name is up to the operator. ``read_block`` looks up the secret block that
    holds a service's key.
    """
    if options.record is not None and options.check is not None:
        raise UserMistake("--record and --check: one at a time")
    places = golden_places(options.record, options.check, settings, deployed=deployed)
    golden = read_golden(Path(places.check), shown=options.check) if places.check is not None else None
    cluster = cluster_of(settings, options.workers)
    if options.model not in settings.endpoints() and not (options.record or options.check):
        check_options(cluster)
    spec = _model(options, settings, deployed)
    if options.against is not None and spec.endpoint is None:
        raise UserMistake(
            f"--against {options.against}: is what a service is compared with, and {spec.name} is none"
        )
    for note in spec.notes:
        console.say(note)
    with torch_in_own_folder():
        if places.record is not None:
            turns = record(spec, Path(places.record), shown=options.record, read_block=read_block)
            return [Check("recorded", None, f"{counted(turns, 'turns')} in {options.record}")]
        if golden is not None:
            return check_golden(spec, golden, read_block=read_block)
        if spec.endpoint is not None:
            local = _counterpart(options, settings, deployed)
            return verify_service(spec, local, read_block=read_block, say=console.say)
        return verify(spec, cluster=cluster, say=console.say)


def _counterpart(options: VerifyOptions, settings: Settings, deployed: bool) -> ModelSpec | None:
    """The local model that a service is compared with, where one is named."""
    if options.against is None:
        return None
    found = _found(options.against, settings, deployed, **_reading(options))
    if found.endpoint is not None:
        raise UserMistake(f"--against {options.against}: that is a service too; name a model on this machine")
    return found


def _model(options: VerifyOptions, settings: Settings, deployed: bool) -> ModelSpec:
    return _found(
        options.model,
        settings,
        deployed,
        dtype=options.dtype,
        revision=options.revision,
        attributes=options.attributes,
        # With a service these are about the model on this machine that it is compared with.
        **({} if options.against is not None else _reading(options)),
    )


def _reading(options: VerifyOptions) -> dict[str, Any]:
    """How a model on this machine is read, where that is said."""
    return {"family": options.family, "read_at": options.read_at, "add_bos": options.add_bos}


def _found(name: str, settings: Settings, deployed: bool, **options: Any) -> ModelSpec:
    if deployed:
        model_named(name, settings)
    return find_model(
        name,
        settings=settings,
        digest_cache=settings.opened_home().model_digests,
        **options,
    )


def _outcome(check: Check) -> str:
    return {True: "pass", False: "FAIL", None: "-"}[check.passed]


def checks_table(model: str, checks: Sequence[Check]) -> Table:
    """A row a check: what it is, what was measured, what is allowed, how it came out."""
    table = Table(title=f"Verified: {printable(model)}", title_justify="left")
    for heading in ("check", "measured", "allowed", ""):
        table.add_column(heading, overflow="fold")
    for check in checks:
        style = "bold red" if check.passed is False else None
        row = (check.name, check.measured, check.allowed, _outcome(check))
        table.add_row(*map(printable, row), style=style)
    return table


def checks_text(checks: Sequence[Check]) -> str:
    """The same as lines, for a log."""
    return "".join(
        printable(f"{_outcome(check):<5}{check.name}: {check.measured}")
        + (f" (allowed: {check.allowed})\n" if check.allowed else "\n")
        for check in checks
    )


def checks_rows(checks: Sequence[Check]) -> list[dict[str, str]]:
    """The same for a table in Prefect's pages."""
    return [
        {
            "check": printable(check.name),
            "measured": printable(check.measured),
            "allowed": printable(check.allowed),
            "outcome": _outcome(check),
        }
        for check in checks
    ]


def verdict(checks: Sequence[Check]) -> str:
    """What they come to, in a line; nothing where nothing was checked."""
    failed = [check.name for check in checks if check.passed is False]
    if failed:
        return printable(f"failed: {'; '.join(failed)}")
    return "all checks passed" if any(check.passed for check in checks) else ""


def main() -> NoReturn:
    """Carry out the command of this process, and end the process."""
    keep_out_of_workers()
    sys.exit(command())


def command(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-"):
        given = ["--model", *given]
    with stopping_on_signals(), private():
        try:
            options = parse(
                VerifyCommandOptions,
                given,
                program="python -m flows.verify",
                summary="Check that a reward model gives the scores of its card, and the same ones whatever "
                "goes with them.",
                examples=_EXAMPLES,
            )
            settings = Settings.read()
            with opened(Console()) as console:
                if options.deployment is not None:
                    return _carried_out_there(options, options.deployment, settings, console)
                checks = checked(options, settings, console)
                told = verdict(checks)
                console.show(
                    Group(checks_table(options.model, checks), *([Text(told)] if told else [])),
                    checks_text(checks) + (f"{told}\n" if told else ""),
                )
        except AssayError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return error.exit_code
        except KeyboardInterrupt:
            print("stopped by Ctrl-C", file=sys.stderr, flush=True)
            return INTERRUPTED
    return 1 if any(check.passed is False for check in checks) else 0


def _carried_out_there(
    options: VerifyCommandOptions, deployment: str, settings: Settings, console: Console
) -> int:
    from flows.remote_run import run_there

    asked = options.model_dump(mode="json", exclude={"deployment"}, exclude_unset=True)
    return run_there("verify", deployment, {"options": asked}, settings, console.say)
