"""``assay curate``: its options, its help, and the flow that it starts."""

from __future__ import annotations

from collections.abc import Callable

from assay.config.options import RunOptions
from flows.command.console import HeldConsole, Showing, current
from flows.command.launch import Command, Elsewhere, Ended
from flows.command.options import AsJson, DeploymentName, Quiet
from flows.curate.prepare import Prepared, prepare

_EXAMPLES = """\
examples:
  PROGRAM --config samples/demo.yaml
  PROGRAM --input 'chats/*.jsonl' --output runs/chats
  PROGRAM --input chats.jsonl.gz --output runs/good \\
      --keep 'helpfulness >= 2.5' --keep 'toxicity < 1' --export steerlm messages
  PROGRAM --input chats.jsonl --output runs/chats --dry-run
  PROGRAM --input chats.jsonl --output runs/chats --json | jq .rows.kept

exit codes:
  0    finished, whether or not records were quarantined
  1    a fault; or an input is cut short or damaged; or no record at all could
       be used
  2    a mistake in the options, found before any work
  75   stopped early; the same command goes on from there
  129  SIGHUP: the terminal was closed; the same command goes on from there
  130  Ctrl-C; the same command goes on from there
  143  SIGTERM; the same command goes on from there

ASSAY_HOME (default: the user's cache folder) keeps scores and converted
records for later runs. PREFECT_API_URL names a Prefect server to report to;
without it, a run starts its own.
"""


#: Fields that are no options of a run.
_OF_THE_COMMAND = {"deployment", "quiet", "json_"}


class CommandOptions(RunOptions):
    """What the command line takes: the options of a run, who does it, and how much of it is shown."""

    deployment: DeploymentName = None
    quiet: Quiet = False
    json_: AsJson = False

    def of_the_run(self) -> RunOptions:
        """The options of the run alone."""
        return RunOptions(**self.model_dump(exclude=_OF_THE_COMMAND))


def _elsewhere(options: CommandOptions) -> Elsewhere | None:
    if options.deployment is None:
        return None
    asked = options.model_dump(mode="json", exclude=_OF_THE_COMMAND, exclude_unset=True)
    return Elsewhere("curate", options.deployment, {"options": asked})


def _flow() -> Callable[[CommandOptions], Ended]:
    from flows.curate.flow import curate
    from flows.server.outcome import carried_out

    return lambda options: carried_out(curate, options.of_the_run(), say=current().say)


def _rerun(options: CommandOptions, prepared: Prepared, console: HeldConsole) -> Ended | None:
    from flows.curate.rerun import rerun

    return rerun(options.of_the_run(), prepared, console)


COMMAND = Command(
    summary="Rate every assistant turn of chat data with a reward model, keep the records that pass, and "
    "write labelled training files.",
    examples=_EXAMPLES,
    options=CommandOptions,
    check=prepare,
    flow=_flow,
    elsewhere=_elsewhere,
    rerun=_rerun,
    showing=lambda options: Showing(options.quiet, options.json_),
)
