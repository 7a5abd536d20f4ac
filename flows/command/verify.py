"""``assay verify``: its options, its help, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions
from assay.verify.table import checks_table, checks_text, verdict
from flows.command.console import Console, Showing, opened
from flows.command.endings import exit_code_of
from flows.command.options import AsJson, DeploymentName, Quiet, parse
from flows.verify.checked import checked
from flows.verify.results import checks_file, folder_for, write

_EXAMPLES = """\
examples:
  PROGRAM starter
  PROGRAM nvidia/Qwen-2.5-Nemotron-32B-Reward --dtype float16
  PROGRAM starter --output runs/verified
  PROGRAM starter --record golden.json
  PROGRAM starter --check golden.json
  PROGRAM judge --deployment verify-gpu

exit codes:
  0    every check that applies has passed
  1    a check has failed, or the model cannot be loaded
  2    a mistake in the options
"""


#: Fields that are no options of the checks.
_OF_THE_COMMAND = {"deployment", "quiet", "json_"}


class VerifyCommandOptions(VerifyOptions):
    """What the command line takes: the options of the checks, and a deployment to do them, if any."""

    deployment: DeploymentName = None
    quiet: Quiet = False
    json_: AsJson = False


def command(arguments: Sequence[str], program: str = "assay verify") -> int:
    """Carry out the command and return its exit code."""
    given = list(arguments)
    if given and not given[0].startswith("-"):
        given = ["--model", *given]
    return exit_code_of(lambda: _carried_out(given, program), goes_on=False)


def _carried_out(arguments: Sequence[str], program: str) -> int:
    options = parse(
        VerifyCommandOptions,
        arguments,
        program=program,
        summary="Check that a reward model gives the scores of its card, and that batches and workers do not "
        "change them.",
        examples=_EXAMPLES,
    )
    settings = Settings.read()
    with opened(Console()) as console:
        console.showing = Showing(options.quiet, options.json_)
        if options.deployment is not None:
            return _carried_out_there(options, options.deployment, settings, console)
        folder = folder_for(options, settings, deployed=False)
        checks = checked(options, settings, console)
        said = verdict(checks)
        console.show(
            Group(checks_table(options.model, checks), *([Text(said)] if said else [])),
            checks_text(checks) + (f"{said}\n" if said else ""),
        )
        console.show_data(checks_file(options, checks))
        if options.quiet and any(check.passed is False for check in checks):
            console.say(f"error: {said}")
        if folder is not None:
            asked = VerifyOptions(**options.model_dump(exclude=_OF_THE_COMMAND))
            write(folder, asked, checks, console.say)
    return 1 if any(check.passed is False for check in checks) else 0


def _carried_out_there(
    options: VerifyCommandOptions, deployment: str, settings: Settings, console: Console
) -> int:
    from flows.server.remote_runs import run_there

    asked = options.model_dump(mode="json", exclude=_OF_THE_COMMAND, exclude_unset=True)
    return run_there("verify", deployment, {"options": asked}, settings, console.say)
