"""The flow *evaluate*: read, gather what the benchmark asks, score, make the figures, show them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from prefect import State, flow, runtime

from assay.config.evaluate_options import EvaluateOptions
from assay.config.options import as_command
from assay.config.settings import Settings
from assay.core.errors import AssayError
from assay.core.text import counted, printable
from assay.evaluate.evaluate import EVALUATE, ToEvaluate
from assay.evaluate.evaluation import Evaluation
from assay.evaluate.gather import GATHER, Gathered, ToGather, items_in
from assay.evaluate.page import EvaluationShown, shown
from assay.evaluate.recorded_scores import recorded
from assay.evaluate.scores import Scores, column_to_compare, scores_of
from assay.evaluate.tables import evaluation_table, percent
from assay.read.convert import CONVERT, ToConvert
from assay.read.inventory import INGEST, Inputs
from assay.report.build import made_or_warned
from assay.report.summary import lines_on_shortfalls
from assay.rewards.spec import ModelSpec
from assay.score.scoring import ScoringWork, ToScore, former_remarks
from assay.score.store import nameless_scores
from assay.storage.manifests import Converted
from assay.storage.private import private
from assay.storage.stage import RunContext
from flows.command.console import Console, current, is_of_a_deployment
from flows.evaluate.prepare import STARTER, PreparedEvaluation, prepare
from flows.server.announcing import notify_of_resumable, tag_run
from flows.server.endings import EndKind, completed, failed
from flows.server.mistakes import ended_by
from flows.server.queue_place import place_in_queue
from flows.server.run_names import day_of_the_run, named_after, with_day
from tasks.artifact_keys import Subject
from tasks.evaluate import show_evaluation
from tasks.report import page_address
from tasks.score import score
from tasks.server_answers import drop_results
from tasks.stage import run_stage

drop_results()


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation, and how its command ends."""

    evaluation: Evaluation

    @property
    def complete(self) -> bool:
        """False where an input is cut short or damaged. Rows that are missing are no fault of the run."""
        return not self.evaluation.shortfalls

    @property
    def unusable(self) -> str | None:
        """Why no row could be used; None where one could."""
        return self.evaluation.unusable


@flow(
    name="evaluate",
    flow_run_name=named_after(lambda options: f"evaluate on {options.benchmark}"),
    persist_result=False,
    on_failure=[notify_of_resumable],
    on_crashed=[notify_of_resumable],
    on_cancellation=[notify_of_resumable],
)
def evaluate(options: EvaluateOptions) -> Evaluated | State[Any]:
    """The evaluation, as the output folder now holds it.

    Raises UserMistake and OutputRefused, and what a stage raises; the next run uses what is finished by then.
    A deployment's run raises none of these: it ends in a state with the same message.
    """
    with private():
        if not is_of_a_deployment():
            return _evaluated(options, deployed=False)
        try:
            return _end_of(_evaluated(options, deployed=True))
        except AssayError as error:
            return ended_by(error, options, options.input)


def _end_of(outcome: Evaluated) -> State[Any]:
    """The state in which a deployment's run with this outcome ends."""
    evaluation = outcome.evaluation
    if outcome.unusable is not None:
        return failed(outcome.unusable)
    figures = ", ".join(f"{model.name} {percent(model.overall.accuracy)}%" for model in evaluation.models)
    message = printable(f"{evaluation.title}, {counted(evaluation.rows.used, 'rows')}: {figures}")
    if not evaluation.complete:
        message += f"; not complete: {printable('; '.join(evaluation.why_incomplete))}"
    return completed(message, None if outcome.complete else EndKind.INCOMPLETE)


def _evaluated(options: EvaluateOptions, *, deployed: bool) -> Evaluated:
    console = current()
    console.flow_run_id = UUID(str(runtime.flow_run.id))
    if deployed:
        output = with_day(options.output, day_of_the_run())
        options = options.model_copy(update={"output": output})
    prepared = prepare(options, Settings.read(), deployed=deployed)
    models = [model.name for model in prepared.models.values()]
    tag_run(runtime.flow_run.id, models=models, inputs=options.input)
    run = _Run(options, prepared, console, RunContext(prepared.home, console))
    with place_in_queue(prepared.home, console) if deployed else nullcontext():
        return run.done()


@dataclass(frozen=True, slots=True)
class _Run:
    """The stages of one evaluation, in order."""

    options: EvaluateOptions
    prepared: PreparedEvaluation
    console: Console
    context: RunContext

    def done(self) -> Evaluated:
        """Run all stages, write the results and show them."""
        output, home = self.prepared.output, self.prepared.home
        with output.held():
            converted = self._converted()
            gathered = self._gathered(converted)
            scores = self._scores(gathered)
            starter = self._starter(gathered)
            given = ToEvaluate(
                gathered,
                converted,
                self.options.benchmark,
                scores,
                starter,
                self.options.model_dump(mode="json"),
            )
            with self.console.stage("evaluate") as stage:
                evaluation = run_stage(EVALUATE, given, self.context).manifest
                stage.note = f"{counted(len(scores), 'models')} on {counted(evaluation.rows.used, 'rows')}"
            seconds = {name: round(value, 3) for name, value in self.console.seconds.items()}
            evaluation = replace(evaluation, seconds=seconds)
            page = self._shown(evaluation)
            evaluation = output.write(evaluation, gathered, home, page.page)
            address = page_address(self.options.output, self.prepared.results_url) if page.page else None
            show_evaluation(evaluation, page.pictures, address, Subject(self.options.output))
        self.console.show(evaluation_table(evaluation))
        self.console.say(f"Results in {self.options.output}")
        outcome = Evaluated(evaluation)
        if outcome.unusable is not None:
            self.console.say(f"error: {outcome.unusable}")
        return outcome

    def _shown(self, evaluation: Evaluation) -> EvaluationShown:
        """The page; none with --no-report."""
        nothing = EvaluationShown()
        if not self.options.report:
            return nothing
        command = as_command(self.options, "assay evaluate")
        return made_or_warned(lambda: shown(evaluation, command), nothing, self.context)

    def _converted(self) -> Converted:
        places, options = self.prepared.places, self.options
        inputs = Inputs(
            tuple(places.inputs),
            options.format,
            places.within,
            self.prepared.output.path,
            mapped=self.prepared.names,
        )
        with self.console.stage("ingest") as stage:
            inventory = run_stage(INGEST, inputs, self.context).manifest
            stage.note = counted(len(inventory.files), "files")
        with self.console.stage("convert") as stage:
            given = ToConvert(inventory, hide_reasoning=options.hide_reasoning)
            finished = run_stage(CONVERT, given, self.context)
            stage.cached = finished.cached
            stage.note = counted(finished.manifest.counts.read, "records")
        for line in lines_on_shortfalls(finished.manifest.shortfalls):
            self.console.say(f"warning: {line}, and this run exits with 1")
        return finished.manifest

    def _gathered(self, converted: Converted) -> Gathered:
        with self.console.stage("gather") as stage:
            finished = run_stage(GATHER, ToGather(converted, self.options.benchmark), self.context)
            stage.cached = finished.cached
            rows = finished.manifest.rows
            stage.note = f"{counted(rows.read, 'rows')}: {rows.used:,} used"
            if rows.dropped:
                stage.note += f", {rows.dropped:,} dropped"
            if rows.quarantined:
                stage.note += f", {rows.quarantined:,} quarantined"
        return finished.manifest

    def _scores(self, gathered: Gathered) -> tuple[Scores, ...]:
        """The scores of each model, and the recorded ones."""
        by = self.options.by
        scored = [
            self._scored(name, model, gathered, column_to_compare(model.columns, by, name))
            for name, model in self.prepared.models.items()
        ]
        items = items_in(gathered, self.prepared.home) if self.prepared.scores else []
        shown = self.options.named_scores()
        kept = [recorded(name, path, shown[name], items, by) for name, path in self.prepared.scores.items()]
        return (*scored, *kept)

    def _starter(self, gathered: Gathered) -> Scores | None:
        """The starter's scores: of the column that is compared, where it rates it, else of helpfulness."""
        model = self.prepared.starter
        if model is None:
            return None
        by = self.options.by if self.options.by in model.columns else None
        return self._scored(STARTER, model, gathered, column_to_compare(model.columns, by, STARTER))

    def _scored(self, name: str, model: ModelSpec, gathered: Gathered, by: str) -> Scores:
        if former := nameless_scores(model, self.prepared.home):
            self.console.say(former)
        several = len(self.prepared.models) + (self.prepared.starter is not None) > 1
        with self.console.stage(f"score {name}" if several else "score") as stage:
            given = ToScore(gathered.asked, model, self.prepared.cluster)
            subject = Subject(self.options.output, name if several else "")
            finished = score(given, self.context, subject)
            stage.cached = finished.cached
            if finished.cached:
                self.console.did(ScoringWork(remarks=former_remarks(model, self.context)))
            work = self.console.work_of(ScoringWork) or ScoringWork()
            stage.note = (
                f"{counted(finished.manifest.turns, 'turns')}, {work.turns_scored:,} scored by this run"
            )
        found = scores_of(name, model, finished.manifest, by, self.prepared.home)
        return replace(found, notes=(*found.notes, *work.remarks))
