"""The stages of a run, in order: read (ingest, convert) → score → filter → export → report.

Prefect is not imported here: the caller passes a ``Conductor``, which runs each stage. That of the flow runs
it as a Prefect task.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from assay.config.options import RunOptions, as_command
from assay.core.errors import AssayError, OutputRefused
from assay.core.text import counted
from assay.export import EXPORT, AboutModel, AboutRun, ToExport, wanted
from assay.export.card import for_others
from assay.export.first_rows import first_rows
from assay.export.folder import OutputFolder
from assay.export.foreseen import notes_on_sides, warnings_of
from assay.export.usable import nothing_usable
from assay.read.convert import CONVERT, ToConvert
from assay.read.inventory import INGEST, Inputs
from assay.read.releases import new_only, released
from assay.report.build import Reported, ToReport, reported
from assay.report.dry_run import preview_data, preview_table
from assay.report.preview import rules_table
from assay.report.repeated import repeated_records
from assay.report.spread import spreads
from assay.report.summary import (
    ScoredModel,
    lines_on_shortfalls,
    run_manifest,
    summary_table,
    summary_text,
)
from assay.rewards.catalog import CATALOG
from assay.rewards.named import NamedModel
from assay.score.scoring import ScoringWork, ToScore, former_remarks, preview
from assay.score.store import nameless_scores
from assay.score.together import TOGETHER, ToPutTogether
from assay.select.decide import DECIDE, ToDecide, refuse_quarantine
from assay.select.preview import previewed
from assay.select.sides import both_sides_kept
from assay.storage.kept_manifests import Finished
from assay.storage.manifests import Converted, Counts, Filtered, Scored
from assay.storage.run_manifest import REPORT, RUN_MANIFEST, RunManifest
from assay.storage.stage import Given, Made, RunContext, Stage
from assay.verify.kept import measured_of
from flows.command.console import Console
from flows.curate import unusable
from flows.curate.prepare import Prepared


class Conductor(Protocol):
    """Runs the stages, and shows their results in places other than the console."""

    def run(self, stage: Stage[Given, Made], given: Given, context: RunContext) -> Finished[Made]:
        """The manifest that the stage makes from ``given``, or that an earlier run made from the same."""

    def score(self, given: ToScore, context: RunContext, model: str) -> Finished[Scored]:
        """What ``run`` returns, for one model's scores. ``model``: its name; empty if there is only one."""

    def show(self, manifest: RunManifest, page: Reported) -> None:
        """Show the results, which are in place now."""

    def announce(self, manifest: RunManifest) -> None:
        """Tell others that there are results they can use."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """The result of a dry run, which scores nothing and writes no results."""

    complete: bool
    unusable: str | None
    """Why no record could be used; None if at least one could."""


@dataclass(frozen=True, slots=True)
class NothingNew:
    """A run whose every input is in an earlier release."""

    sentence: str
    complete: bool = True
    unusable: None = None


Outcome = RunManifest | DryRun | NothingNew


@dataclass(frozen=True, slots=True)
class _Rated:
    """The scores of all models."""

    scored: Scored
    """The scores. With several models, their columns stand side by side."""
    models: tuple[ScoredModel, ...]


class NothingNewFound(Exception):
    """Every input file is in an earlier release."""


@dataclass(frozen=True, slots=True)
class Run:
    """The stages of one run, in order."""

    options: RunOptions
    prepared: Prepared
    console: Console
    context: RunContext
    conductor: Conductor

    def written(self) -> RunManifest:
        """Run all stages, put the results in place and show them. Returns the manifest."""
        output = self.prepared.output
        with output.held():
            if repaired := output.repair():
                self.console.say(repaired)
            unusable.repair_beside(output)
            if self.options.release and output.path.exists():
                raise OutputRefused(f"{output.path}: is there by now; start the run again")
            manifest, page, rows = self._carried_out()
            self.console.outcome = manifest
            self.conductor.show(manifest, page)
        fault = manifest.unusable is not None
        if not fault and not manifest.is_beside:
            self.conductor.announce(manifest)
        self.console.show(summary_table(manifest), summary_text(manifest))
        self.console.show_data(manifest.as_written())
        if why := unusable.sentence(manifest):
            unusable.show(why, rows, self.console, fault=fault)
        elif self.prepared.hub is not None:
            raters = " and ".join(one.spec.name for one in self.prepared.models)
            message = f"Rated by {raters}: {manifest.rows.kept:,} records kept"
            address = self.prepared.hub.push(output.path, for_others(manifest), message=message)
            self.console.say(f"pushed: {address}")
        return manifest

    def previewed(self) -> DryRun:
        """Show what the run would score. Writes nothing but converted records, below ``ASSAY_HOME``."""
        converted = self._converted()
        self._warn_of_exports(converted)
        figures: dict[str, object] = {}
        for one in self.prepared.models:
            found = preview(converted, one.spec, home=self.prepared.home)
            for note in one.spec.notes:
                self.console.say(note)
            if former := nameless_scores(one.spec, self.prepared.home):
                self.console.say(former)
            self.console.show(preview_table(converted, one.spec, found))
            figures[one.key] = preview_data(converted, one.spec, found)
        self.console.show_data(figures)
        why = nothing_usable(converted.counts, {})
        fault = why is not None and converted.counts.read > 0
        if why is not None:
            unusable.show(why, first_rows(converted, None, self.prepared.home), self.console, fault=fault)
        return DryRun(converted.complete, why if fault else None)

    def tried(self) -> DryRun:
        """What the rules would do with the stored scores, which is also shown. Nothing that it writes stays.

        If a turn has no score yet, show what scoring would cost instead.
        """
        converted = self._converted()
        costs = [
            (one.spec, preview(converted, one.spec, home=self.prepared.home)) for one in self.prepared.models
        ]
        for model, cost in costs:
            if cost.missing_turns:
                self.console.say(
                    f"--preview: {counted(cost.missing_turns, 'turns')} of {cost.distinct_turns:,} have no "
                    f"score of {model.name} yet. Run without --preview to score them; what that costs:"
                )
                self.console.show(preview_table(converted, model, cost))
        if any(cost.missing_turns for _, cost in costs):
            self.console.show_data(
                {model.name: preview_data(converted, model, cost) for model, cost in costs}
            )
            return DryRun(converted.complete, None)
        scored = self._scored(converted).scored
        rules, selection = self.prepared.rules, self.prepared.selection
        found = previewed(converted, scored, rules, selection, self.prepared.home)
        self.console.show(rules_table(found))
        self.console.show_data(found)
        return DryRun(converted.complete, None)

    def _carried_out(self) -> tuple[RunManifest, Reported, list[str]]:
        """Run the stages. Returns the manifest, the page, and first rows of unusable inputs."""
        options, prepared = self.options, self.prepared
        converted = self._converted()
        notes = self._warn_of_exports(converted)
        rated = self._scored(converted) if options.stop_after != "convert" else None
        scored = rated.scored if rated else None
        filtered = self._filtered(converted, scored)
        staging = prepared.output.staging()
        to_export = ToExport(
            converted,
            scored,
            filtered,
            prepared.exports,
            prepared.output,
            staging,
            options.stop_after,
            options.pair_choice(),
            options.split_choice(),
            _about(options, prepared, self.context),
            self._desirable(converted, scored),
            options.shard_bytes(),
        )
        with ExitStack() as stack:
            with self.console.stage("export") as stage:
                exported = self.conductor.run(EXPORT, to_export, self.context)
                folder = stack.enter_context(
                    unusable.destination(filtered.counts, exported, options, prepared)
                )
                output = unusable.name_of(folder, options, prepared)
                stage.cached = exported.cached
                stage.note = f"{counted(len(exported.manifest.files), 'files')} in {output}"
            manifest = run_manifest(
                options=options.model_dump(mode="json"),
                models=rated.models if rated else (),
                converted=converted,
                scored=scored,
                filtered=filtered,
                exported=exported.manifest,
                seconds=self.console.seconds,
                output=output,
                spread=spreads(converted, scored, prepared.home) if scored else {},
                repeated=repeated_records(converted, prepared.home),
                notes=notes,
            )
            staged = None if exported.cached else staging
            page = self._reported(manifest, converted, rated, filtered, files=staged or folder.path)
            manifest = self._with_page(manifest, page, folder, staged)
            # Write it last, and outside of the stage, whose result is kept: it reports this run alone.
            if exported.cached:
                folder.refresh(manifest)
            else:
                folder.publish(staging, manifest)
        if manifest.unusable is None:
            return manifest, page, []
        exports = to_export.wanted.records
        return (
            manifest,
            page,
            list(first_rows(converted, filtered, prepared.home, scored=scored, exports=exports)),
        )

    def _reported(
        self,
        manifest: RunManifest,
        converted: Converted,
        rated: _Rated | None,
        filtered: Filtered,
        *,
        files: Path,
    ) -> Reported:
        """The page of these results, which are in ``files``. Empty with --no-report, and after a fault."""
        before = self.prepared.before
        if not self.options.report:
            return Reported()
        with self.console.stage("report") as stage:
            to_report = ToReport(
                manifest,
                converted,
                rated.scored if rated else None,
                filtered,
                models={one.key: one.spec for one in self.prepared.models},
                files=files,
                command=as_command(self.options),
                work=rated.models[0].work if rated and len(rated.models) == 1 else None,
                before=before if (before.folder / RUN_MANIFEST).is_file() else None,
            )
            page = reported(to_report, self.context)
            stage.note = f"{len(page.page) / 1e6:.1f} MB" if page.page else "no page"
        return page

    def _with_page(
        self, manifest: RunManifest, page: Reported, folder: OutputFolder, staging: Path | None
    ) -> RunManifest:
        """Put the page beside the results. Returns the manifest, which names the page if it is there."""
        try:
            folder.put_page(staging, page.page)
        except (AssayError, OSError) as error:
            self.console.say(f"warning: {REPORT} could not be written ({error}). The results are whole")
            page = replace(page, page=b"")
        return replace(
            manifest,
            report=REPORT if page.page else None,
            observations=page.warnings,
            seconds={stage: round(value, 3) for stage, value in self.console.seconds.items()},
        )

    def _warn_of_exports(self, converted: Converted) -> tuple[str, ...]:
        """The notes on sides, which are also shown. Warns of exports that would hold nothing.

        Raises UserMistake if an export can make nothing of these inputs.
        """
        options, prepared = self.options, self.prepared
        choices = options.pair_choice(), options.split_choice()
        has_rule = bool(prepared.desirable.rules)
        to_write = wanted(prepared.exports, options.stop_after, *choices, has_rule=has_rule)
        for line in warnings_of(to_write, converted, prepared.home):
            self.console.say(f"warning: {line}")
        notes = notes_on_sides(to_write.split, converted, prepared.home)
        for note in notes:
            self.console.say(f"note: {note}")
        return notes

    def _converted(self) -> Converted:
        options, output = self.options, self.prepared.output.path
        inputs = inputs_of(options, self.prepared)
        with self.console.stage("ingest") as stage:
            inventory = self.conductor.run(INGEST, inputs, self.context).manifest
            stage.note = counted(len(inventory.files), "files")
            if options.release:
                inventory = new_only(inventory, released(output.parent))
                stage.note += f", {len(inventory.files):,} new"
                if not inventory.files:
                    raise NothingNewFound
        with self.console.stage("convert") as stage:
            to_convert = ToConvert(
                inventory,
                options.limit,
                options.strict,
                hide_reasoning=options.hide_reasoning,
                find_languages=options.stop_after != "convert" and self.prepared.finds_languages,
            )
            finished = self.conductor.run(CONVERT, to_convert, self.context)
            stage.cached = finished.cached
            stage.note = _counted(finished.manifest.counts, "ok")
        for line in lines_on_shortfalls(finished.manifest.shortfalls):
            self.console.say(f"warning: {line}, and this run exits with 1")
        return finished.manifest

    def _scored(self, converted: Converted) -> _Rated:
        """The scores of all models, one model after the other.

        If a model fails, the others are still asked, and their scores are stored. Then the fault is raised.
        """
        models = self.prepared.models
        found: list[ScoredModel] = []
        faults: list[AssayError] = []
        for one in models:
            try:
                found.append(self._scored_by(one, converted))
            except AssayError as fault:
                faults.append(fault)
                if one is not models[-1]:
                    self.console.say(f"error: {one.key}: {fault}; the other models are still asked")
        if faults:
            raise faults[0]
        if len(found) == 1:
            return _Rated(found[0].scored, tuple(found))
        given = ToPutTogether(converted, {one.model.key: one.scored for one in found})
        with self.console.stage("together") as stage:
            finished = self.conductor.run(TOGETHER, given, self.context)
            stage.cached = finished.cached
            stage.note = f"scores of {len(found)} models"
        return _Rated(finished.manifest, tuple(found))

    def _scored_by(self, one: NamedModel, converted: Converted) -> ScoredModel:
        model = one.spec
        if former := nameless_scores(model, self.prepared.home):
            self.console.say(former)
        to_score = ToScore(converted, model, self.prepared.cluster, self.options.shard_tokens)
        name = "score" if len(self.prepared.models) == 1 else f"score {one.key}"
        with self.console.stage(name) as stage:
            several = "" if len(self.prepared.models) == 1 else one.key
            finished = self.conductor.score(to_score, self.context, several)
            stage.cached = finished.cached
            if finished.cached:
                self.console.did(ScoringWork(remarks=former_remarks(model, self.context)))
            work = self.console.work_of(ScoringWork) or ScoringWork()
            stage.note = (
                f"{counted(finished.manifest.turns, 'turns')}, {work.turns_scored:,} scored by this run"
            )
        return ScoredModel(one, finished.manifest, work)

    def _sides_are_exported(self) -> bool:
        """Whether a file says which answer people chose. Also True if none for training is written."""
        to_write = wanted(self.prepared.exports, self.options.stop_after)
        says_sides = any(one.holds_sides for one in to_write.records)
        return self.options.stop_after is not None or bool(to_write.pairs) or says_sides

    def _filtered(self, converted: Converted, scored: Scored | None) -> Filtered:
        """The decisions on all records. A run that stops early has no rules."""
        with self.console.stage("filter") as stage:
            to_decide = ToDecide(converted, scored, self.prepared.rules, self.prepared.selection)
            finished = self.conductor.run(DECIDE, to_decide, self.context)
            stage.cached = finished.cached
            stage.note = _counted(finished.manifest.counts, "kept")
        if converted.counts.ok and not finished.manifest.counts.ok:
            self.console.say("warning: no record is kept, so the files for training hold no row")
        formats = [file.format for file in converted.inputs]
        if not self._sides_are_exported() and (why := both_sides_kept(formats, self.prepared.rules)):
            self.console.say(f"warning: {why}")
        if self.options.strict:
            refuse_quarantine(converted, finished.manifest, self.prepared.home)
        return finished.manifest

    def _desirable(self, converted: Converted, scored: Scored | None) -> Filtered | None:
        """The records whose answers the rule for desirable ones passes; None without such a rule."""
        if not self.prepared.desirable.rules:
            return None
        with self.console.stage("desirable") as stage:
            rules, selection = self.prepared.desirable, self.prepared.selection.of_verdicts
            to_decide = ToDecide(converted, scored, rules, selection)
            finished = self.conductor.run(DECIDE, to_decide, self.context)
            stage.cached = finished.cached
            stage.note = _counted(finished.manifest.counts, "desirable")
        return finished.manifest


def inputs_of(options: RunOptions, prepared: Prepared) -> Inputs:
    """What the run reads."""
    return Inputs(
        tuple(prepared.places.inputs),
        options.format,
        prepared.places.within,
        prepared.output.path,
        mapped=prepared.names,
        verify=options.verify_inputs,
    )


def _about(options: RunOptions, prepared: Prepared, context: RunContext) -> AboutRun:
    """What the dataset card says about the run."""
    models = tuple(
        AboutModel(
            chosen.alias,
            one.spec.name,
            one.spec.fingerprint,
            chosen.options.revision,
            CATALOG[one.spec.name].license if one.spec.name in CATALOG else None,
        )
        for chosen, one in zip(options.chosen_models(), prepared.models, strict=True)
    )
    verified = [
        f"{model.alias}: {measured}" if model.alias is not None else measured
        for model in models
        for measured in measured_of(model.fingerprint, context)
    ]
    return AboutRun(
        models,
        (*prepared.rules.texts, *prepared.selection.texts),
        tuple(verified),
        finds_languages=prepared.finds_languages,
    )


def _counted(counts: Counts, word: str) -> str:
    """``1,002 records: 990 kept, 9 dropped, 3 quarantined``."""
    parts = [f"{counts.ok:,} {word}"]
    if counts.dropped:
        parts.append(f"{sum(counts.dropped.values()):,} dropped")
    if counts.quarantined:
        parts.append(f"{sum(counts.quarantined.values()):,} quarantined")
    return f"{counted(counts.read, 'records')}: {', '.join(parts)}"
