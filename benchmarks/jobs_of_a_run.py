"""One job of each kind that workers do in a run, with its result and the seconds that it took."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from large_runs import write_data

from assay.config.options import RunOptions
from assay.config.settings import Settings
from assay.core.jobs import AtWork, Job, Result
from assay.core.progress import Progress
from assay.report.build import Reported
from assay.score import gathering
from assay.score.scoring import SCORE, ToScore
from assay.storage.kept_manifests import Finished
from assay.storage.manifests import Scored
from assay.storage.run_manifest import RunManifest
from assay.storage.stage import Given, Made, RunContext, Stage
from flows.command.console import Console, Showing
from flows.curate.prepare import prepare
from flows.curate.run import Run

#: Enough that all stages hand jobs to workers.
RECORDS = 300_000
#: A rule that keeps every record, and names columns that have to be computed.
RULE = "language != 'xx' and answer_chars > 5"


class Done(NamedTuple):
    """A job, its result, and the seconds that it took."""

    job: Job[Any]
    result: Any
    seconds: float


class Recording:
    """Does a run's jobs in this process, and records them. It claims to be several, to get them all."""

    are_several = True
    are_elsewhere = False
    are_running = False

    def __init__(self) -> None:
        self.by_kind: dict[str, list[Done]] = defaultdict(list)

    def do(
        self,
        jobs: Iterable[Job[Result]],
        *,
        stage: str,
        progress: Progress,
        leave_if_unwanted: Callable[[], None],
        done: Callable[[Result], None],
    ) -> None:
        """Do every job of a stage, and record it."""
        for job in jobs:
            sent, began = job.sent(), time.monotonic()
            result = sent.done_by(AtWork())
            self.by_kind[type(job).__name__].append(Done(sent, result, time.monotonic() - began))
            done(result)


class _Alone:
    """Runs the stages without Prefect."""

    def run(self, stage: Stage[Given, Made], given: Given, context: RunContext) -> Finished[Made]:
        return Finished(stage.run(given, context), cached=False)

    def score(self, given: ToScore, context: RunContext, model: str) -> Finished[Scored]:
        return self.run(SCORE, given, context)

    def show(self, manifest: RunManifest, page: Reported) -> None:
        """Do nothing: a benchmark shows no results."""

    def announce(self, manifest: RunManifest) -> None:
        """Do nothing: no one waits for these results."""


def jobs_of_a_run(folder: Path) -> dict[str, Done]:
    """For each kind of job except scoring, by its class: the one whose time is closest to the median."""
    data = folder / "data.jsonl"
    write_data(data, RECORDS)
    # Otherwise only four million turns or more go to workers. A larger run's jobs have the same size.
    gathering._WORTH_WORKERS_TURNS = 0
    settings = Settings(home=folder / "home")
    exports = ["messages", "steerlm", "trl-sft"]
    options = RunOptions(input=[str(data)], output=str(folder / "out"), keep=[RULE], export=exports)
    prepared = prepare(options, settings)
    console, workers = Console(), Recording()
    console.showing = Showing(is_quiet=True)
    Run(options, prepared, console, RunContext(prepared.home, console, workers=workers), _Alone()).written()
    return {
        kind: min(found, key=lambda one: abs(one.seconds - statistics.median(each.seconds for each in found)))
        for kind, found in workers.by_kind.items()
    }
