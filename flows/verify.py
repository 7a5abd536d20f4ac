"""Does this set-up give the scores that a model's card publishes, and the same ones whatever goes with them?

    python -m flows.verify MODEL [option …]

The model is loaded in this process and in Dask workers; no Prefect server is needed, and nothing is
written but what ``--record`` names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Group
from rich.table import Table
from rich.text import Text

from assay.config import CommandLine, Listed, Settings
from assay.errors import AssayError, UserMistake
from assay.models import find_model
from assay.rewards.protocol import ModelSpec
from assay.terminal import printable
from assay.verification import Check, check_golden, read_golden, record, verify, verify_service
from assay.wording import counted
from flows.command_line import parse
from flows.console import Console, opened
from flows.signals import INTERRUPTED, stopping_on_signals

_MODEL = "the reward model"
_WORK = "what is done"

_EXAMPLES = """\
examples:
  python -m flows.verify starter
  python -m flows.verify nvidia/Qwen-2.5-Nemotron-32B-Reward --dtype float16
  python -m flows.verify starter --record golden.json
  python -m flows.verify starter --check golden.json

exit codes:
  0    every check that applies has passed
  1    one has not, or the model cannot be loaded
  2    a mistake in what was asked for
"""


class VerifyOptions(BaseModel):
    """What ``python -m flows.verify`` is asked to do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[
        str,
        Field(
            description="A model of the catalog by name, a Hub id, a folder, or a service of the operator's "
            "list. May be given first, alone."
        ),
        CommandLine(_MODEL, "MODEL"),
    ]
    revision: Annotated[
        str | None,
        Field(description="Branch, tag or commit of a model on the Hub."),
        CommandLine(_MODEL, "COMMIT"),
    ] = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Field(description="What the model computes in; unless given, what its card says, or float32."),
        CommandLine(_MODEL),
    ] = None
    attributes: Annotated[
        list[str],
        Listed,
        Field(description="What each output rates, where config.json does not say."),
        CommandLine(_MODEL, "NAME"),
    ] = []
    against: Annotated[
        str | None,
        Field(description="Of a service: the same model on this machine, whose scores are compared."),
        CommandLine(_MODEL, "MODEL"),
    ] = None
    workers: Annotated[
        int, Field(description="Dask workers whose scores are compared.", ge=1), CommandLine(_WORK, "N")
    ] = 2
    record: Annotated[
        str | None,
        Field(description="Write golden rows: conversations, their scores, and what made them."),
        CommandLine(_WORK, "FILE"),
    ] = None
    check: Annotated[
        str | None,
        Field(description="Compare with golden rows that were recorded before, or elsewhere."),
        CommandLine(_WORK, "FILE"),
    ] = None


def checked(options: VerifyOptions, settings: Settings, console: Console) -> list[Check]:
    """What was measured. With ``record`` or ``check`` only that is done."""
    if options.record is not None and options.check is not None:
        raise UserMistake("--record and --check: one at a time")
    golden = read_golden(Path(options.check)) if options.check is not None else None
    spec = _model(options, settings)
    for note in spec.notes:
        console.say(note)
    if options.record is not None:
        turns = record(spec, Path(options.record))
        return [Check("recorded", None, f"{counted(turns, 'turns')} in {options.record}")]
    if golden is not None:
        return check_golden(spec, golden)
    if spec.endpoint is not None:
        return verify_service(spec, _counterpart(options, settings), say=console.say)
    return verify(spec, workers=options.workers, say=console.say)


def _counterpart(options: VerifyOptions, settings: Settings) -> ModelSpec | None:
    """The local model that a service is compared with, where one is named."""
    if options.against is None:
        return None
    found = find_model(
        options.against, settings=settings, digest_cache=settings.opened_home().root / "model-digests.json"
    )
    if found.endpoint is not None:
        raise UserMistake(f"--against {options.against}: that is a service too; name a model on this machine")
    return found


def _model(options: VerifyOptions, settings: Settings) -> ModelSpec:
    return find_model(
        options.model,
        settings=settings,
        dtype=options.dtype,
        revision=options.revision,
        attributes=options.attributes,
        digest_cache=settings.opened_home().root / "model-digests.json",
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


def verdict(checks: Sequence[Check]) -> str:
    """What they come to, in a line; nothing where nothing was checked."""
    failed = [check.name for check in checks if check.passed is False]
    if failed:
        return printable(f"failed: {'; '.join(failed)}")
    return "all checks passed" if any(check.passed for check in checks) else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-"):
        given = ["--model", *given]
    with stopping_on_signals():
        try:
            options = parse(
                VerifyOptions,
                given,
                program="python -m flows.verify",
                summary="Check that a reward model gives the scores of its card, and the same ones whatever "
                "goes with them.",
                examples=_EXAMPLES,
            )
            with opened(Console()) as console:
                checks = checked(options, Settings.read(), console)
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


if __name__ == "__main__":
    sys.exit(main())
