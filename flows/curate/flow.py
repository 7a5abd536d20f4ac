"""The flow *curate*: rate every assistant turn of chat data, keep what passes, write labelled training files.

Each stage of the run is a Prefect task.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from prefect import State, flow, runtime

from assay.config.options import RunOptions
from assay.config.settings import Settings
from assay.core.errors import AssayError
from assay.core.text import counted
from assay.report.build import Reported
from assay.score.scoring import ToScore
from assay.storage.kept_manifests import Finished
from assay.storage.manifests import Scored
from assay.storage.old_artifacts import LEAST_DAYS, remove_old_artifacts
from assay.storage.private import private
from assay.storage.run_manifest import RunManifest
from assay.storage.stage import Given, Made, RunContext, Stage
from flows.command.console import Console, current, is_of_a_deployment
from flows.curate import unusable
from flows.curate.prepare import Prepared, prepare
from flows.curate.run import DryRun, NothingNew, NothingNewFound, Outcome, Run
from flows.server.announcing import announce_completed, notify_of_resumable, tag_run
from flows.server.endings import EndKind, completed, failed
from flows.server.mistakes import ended_by
from flows.server.queue_place import place_in_queue
from flows.server.run_names import day_of_the_run, named_after, with_day
from tasks.artifact_keys import Subject
from tasks.report import report
from tasks.score import score
from tasks.server_answers import drop_results
from tasks.stage import run_stage

drop_results()


@flow(
    name="curate",
    flow_run_name=named_after(lambda options: f"curate to {options.output}"),
    persist_result=False,
    on_failure=[notify_of_resumable],
    on_crashed=[notify_of_resumable],
    on_cancellation=[notify_of_resumable],
)
def curate(options: RunOptions) -> Outcome | State[Any]:
    """The run's manifest, as the output folder now holds it, or an outcome that writes no manifest.

    Raises UserMistake and OutputRefused before any work, and what a stage raises; the next run uses what is
    finished by then. A deployment's run raises none of these: it ends in a state with the same message.
    """
    with private():
        if not is_of_a_deployment():
            return _curated(options, deployed=False)
        try:
            return _end_of(_curated(options, deployed=True))
        except AssayError as error:
            return ended_by(error, options, options.input)


def _end_of(outcome: Outcome) -> State[Any]:
    """The state in which a deployment's run with this outcome ends."""
    if isinstance(outcome, DryRun):
        if outcome.unusable is not None:
            return failed(outcome.unusable)
        return completed("A dry run: nothing was scored")
    if isinstance(outcome, NothingNew):
        return completed(outcome.sentence)
    if outcome.unusable is not None:
        return failed(unusable.sentence(outcome) or outcome.unusable)
    message = f"{outcome.rows.kept:,} of {outcome.rows.read:,} records kept"
    if not outcome.complete:
        return completed(f"{message}; an input is cut short or damaged", EndKind.INCOMPLETE)
    return completed(message)


def _curated(options: RunOptions, *, deployed: bool) -> Outcome:
    console = current()
    console.flow_run_id = UUID(str(runtime.flow_run.id))
    day = day_of_the_run() if deployed else None
    if day is not None:
        options = options.model_copy(update={"output": with_day(options.output, day)})
    prepared = prepare(options, Settings.read(), deployed=deployed, day=day)
    tag_run(runtime.flow_run.id, models=[one.spec.name for one in prepared.models], inputs=options.input)
    try:
        with place_in_queue(prepared.home, console) if deployed else nullcontext(False) as has_waited:
            if has_waited:
                # The other run may have made the release of the day, or somebody may have moved an input.
                prepared = prepare(options, Settings.read(), deployed=deployed, day=day)
            if deployed and prepared.settings.keep_days is not None:
                _make_room(prepared, prepared.settings.keep_days, console)
            with prepared.workers() as workers:
                context = RunContext(prepared.home, console, workers=workers)
                run = Run(options, prepared, console, context, _InPrefect(options.output, prepared.settings))
                if options.preview:
                    return run.tried()
                return run.previewed() if options.dry_run else run.written()
    except NothingNewFound:
        nothing = f"Nothing new: every input is in an earlier release in {options.output}"
        console.say(nothing)
        # Of --json: there is no manifest.
        console.show_data(None)
        return NothingNew(nothing)


def _make_room(prepared: Prepared, days: int, console: Console) -> None:
    removed = remove_old_artifacts(prepared.home, days)
    if removed.files:
        console.say(
            f"removed {counted(removed.files, 'files')} of earlier stages that no run used for "
            f"{counted(max(days, LEAST_DAYS), 'days')} "
            f"({removed.size / 1e6:,.0f} MB); no score is among them"
        )
    if removed.fault is not None:
        console.say(f"warning: old files of stages could not be removed: {removed.fault}")


@dataclass(frozen=True, slots=True)
class _InPrefect:
    """Has Prefect run each stage as a task, and show the results on its pages."""

    output: str
    settings: Settings

    def run(self, stage: Stage[Given, Made], given: Given, context: RunContext) -> Finished[Made]:
        return run_stage(stage, given, context)

    def score(self, given: ToScore, context: RunContext, model: str) -> Finished[Scored]:
        return score(given, context, Subject(self.output, model))

    def show(self, manifest: RunManifest, page: Reported) -> None:
        # Nobody looks at the pages of a run from the command line, so its server gets no text of the data.
        shown = page if is_of_a_deployment() else replace(page, kinds=())
        report(manifest, shown, self.settings.served_results(), Subject(self.output))

    def announce(self, manifest: RunManifest) -> None:
        announce_completed(manifest, output=self.output)
