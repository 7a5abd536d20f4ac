"""``assay evaluate``: its options, its help, and the flow that it starts."""

from __future__ import annotations

from collections.abc import Callable

from assay.config.evaluate_options import EvaluateOptions
from flows.command.console import current
from flows.command.launch import Command, Elsewhere, Ended
from flows.command.options import DeploymentName
from flows.evaluate.prepare import prepare

_EXAMPLES = """\
examples:
  PROGRAM --benchmark rm-bench --input rm-bench/data --output runs/rm-bench \\
      --model nvidia/Qwen-2.5-Nemotron-32B-Reward
  PROGRAM --benchmark preferences --input 'pairs/*.jsonl' --output runs/pairs \\
      --model judge=models/judge --model other=models/other
  PROGRAM --benchmark judgebench --input outputs.jsonl --scores outputs.jsonl \\
      --output runs/judgebench
  PROGRAM --benchmark labels --input ratings.jsonl --output runs/ratings --model starter

exit codes:
  0    finished, also where rows are missing: the tables say so
  1    a fault; or an input is cut short or damaged; or no row at all could be
       used
  2    a mistake in the options, or the rows of another benchmark
  75   stopped early; the same command goes on from there
  129  SIGHUP: the terminal was closed; the same command goes on from there
  130  Ctrl-C; the same command goes on from there
  143  SIGTERM; the same command goes on from there

ASSAY_HOME keeps scores for later runs: a second evaluation of the same model
on the same rows scores nothing.
"""


class EvaluateCommandOptions(EvaluateOptions):
    """What the command line takes: the options of an evaluation, and the deployment that does it, if any."""

    deployment: DeploymentName = None

    def of_the_run(self) -> EvaluateOptions:
        """The options of the run, without the deployment."""
        return EvaluateOptions(**self.model_dump(exclude={"deployment"}))


def _elsewhere(options: EvaluateCommandOptions) -> Elsewhere | None:
    if options.deployment is None:
        return None
    asked = options.model_dump(mode="json", exclude={"deployment"}, exclude_unset=True)
    return Elsewhere("evaluate", options.deployment, {"options": asked})


def _flow() -> Callable[[EvaluateCommandOptions], Ended]:
    from flows.evaluate.flow import evaluate
    from flows.server.outcome import carried_out

    return lambda options: carried_out(evaluate, options.of_the_run(), say=current().say)


COMMAND = Command(
    summary="Measure how well reward models rank answers, on a benchmark, on preference data\n"
    "or on human labels, and what to doubt about the figures.",
    examples=_EXAMPLES,
    options=EvaluateCommandOptions,
    check=prepare,
    flow=_flow,
    elsewhere=_elsewhere,
)
