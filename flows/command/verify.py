"""``assay verify``: its options, its help, and what it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions
from assay.core.errors import AssayError
from assay.storage.private import private
from assay.verify.table import checks_table, checks_text, verdict
from flows.command.console import Console, opened
from flows.command.options import DeploymentName, parse
from flows.command.signals import INTERRUPTED, stopping_on_signals
from flows.verify.checked import checked

_EXAMPLES = """\
examples:
  PROGRAM starter
  PROGRAM nvidia/Qwen-2.5-Nemotron-32B-Reward --dtype float16
  PROGRAM starter --record golden.json
  PROGRAM starter --check golden.json
  PROGRAM judge --deployment verify-gpu

exit codes:
  0    every check that applies has passed
  1    a check has failed, or the model cannot be loaded
  2    a mistake in the options
"""


class VerifyCommandOptions(VerifyOptions):
    """What the command line takes: the options of the checks, and a deployment to do them, if any."""

    deployment: DeploymentName = None


def command(arguments: Sequence[str], program: str = "assay verify") -> int:
    """Carry out the command and return its exit code."""
    given = list(arguments)
    if given and not given[0].startswith("-"):
        given = ["--model", *given]
    with stopping_on_signals(), private():
        try:
            options = parse(
                VerifyCommandOptions,
                given,
                program=program,
                summary="Check that a reward model gives the scores of its card, and that batches and "
                "workers do not change them.",
                examples=_EXAMPLES,
            )
            settings = Settings.read()
            with opened(Console()) as console:
                if options.deployment is not None:
                    return _carried_out_there(options, options.deployment, settings, console)
                checks = checked(options, settings, console)
                said = verdict(checks)
                console.show(
                    Group(checks_table(options.model, checks), *([Text(said)] if said else [])),
                    checks_text(checks) + (f"{said}\n" if said else ""),
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
    from flows.server.remote_runs import run_there

    asked = options.model_dump(mode="json", exclude={"deployment"}, exclude_unset=True)
    return run_there("verify", deployment, {"options": asked}, settings, console.say)
