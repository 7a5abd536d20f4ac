"""Items and scores → an evaluation: figures, doubts, and models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from assay.core.text import counted
from assay.core.versions import VERSION, installed
from assay.evaluate.agreement import agreements, column_for
from assay.evaluate.answers import ScoredItem
from assay.evaluate.benchmark import Benchmark, Figures
from assay.evaluate.benchmarks import BENCHMARKS, names
from assay.evaluate.correlation import average_ranks
from assay.evaluate.doubts import by_length, difference, doubts
from assay.evaluate.evaluation import (
    ByTies,
    Doubts,
    Evaluation,
    ModelEvaluation,
    ModelRows,
    PublishedLine,
    Versus,
)
from assay.evaluate.figures import RESAMPLES, Figure, Spec, Sums
from assay.evaluate.gather import Gathered, items_in
from assay.evaluate.items import AskedItem
from assay.evaluate.labels import LABELS, RATED, rated_by
from assay.evaluate.scores import Scores, place_of
from assay.rewards.published_results import PublishedResult, published_results
from assay.storage.manifests import Converted
from assay.storage.stage import RunContext, Stage

_PACKAGES = ("torch", "transformers", "tokenizers", "polars", "numpy")
#: A printed percentage may be rounded by so much.
_ROUNDED = 0.0005
_OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class ToEvaluate:
    """What the evaluation is made of."""

    gathered: Gathered
    converted: Converted
    benchmark: str
    scores: tuple[Scores, ...]
    starter: Scores | None = None
    """The starter's scores, to be shown beside each figure."""
    options: Mapping[str, Any] = field(default_factory=dict)


def evaluate(given: ToEvaluate, context: RunContext) -> Evaluation:
    """The evaluation of these scores on the benchmark's items."""
    return evaluated(given, items_in(given.gathered, context.home))


def evaluated(given: ToEvaluate, items: Sequence[AskedItem]) -> Evaluation:
    """The same of items in memory."""
    benchmark, gathered = BENCHMARKS[given.benchmark], given.gathered
    asked = _Asked(benchmark, items, gathered.rows.used, given.starter)
    models = tuple(asked.model(scores) for scores in given.scores)
    several = len(given.scores) > 1
    expected = benchmark.expected(items)
    why = _why_incomplete(benchmark, gathered, given.converted, models, expected)
    return Evaluation(
        assay=VERSION,
        benchmark=benchmark.name,
        title=benchmark.title,
        complete=not why,
        why_incomplete=why,
        expected=expected,
        rows=gathered.rows,
        dropped=gathered.dropped,
        quarantined=gathered.quarantined,
        rules=benchmark.rules,
        source=benchmark.source,
        models=models,
        ensemble=asked.ensemble(given.scores) if several else None,
        versus=tuple(
            asked.versus(*pair) for pair in combinations(sorted(given.scores, key=lambda one: one.name), 2)
        ),
        inputs=given.converted.inputs,
        shortfalls=given.converted.shortfalls,
        resamples=RESAMPLES,
        options=dict(given.options),
        versions=installed(*_PACKAGES),
    )


def _why_incomplete(
    benchmark: Benchmark,
    gathered: Gathered,
    converted: Converted,
    models: Sequence[ModelEvaluation],
    expected: int | None,
) -> tuple[str, ...]:
    why = []
    used = gathered.rows.used
    if expected is not None and used < expected:
        why.append(f"{used:,} of the {expected:,} rows of {benchmark.title} are there")
    if expected is not None and used > expected:
        why.append(f"{used:,} rows are there, and {benchmark.title} has {expected:,}")
    if gathered.rows.quarantined:
        why.append(f"{counted(gathered.rows.quarantined, 'rows')} could not be read")
        if gathered.looks_like:
            count = sum(gathered.looks_like.values())
            why.append(f"rows that look like those of {names(gathered.looks_like)}: {count:,}")
    for model in models:
        if model.rows.unscored:
            count = sum(model.rows.unscored.values())
            why.append(f"{counted(count, 'rows')} without a score of {model.name}")
    why += [str(one) for one in converted.shortfalls]
    return tuple(why)


def _known(item: AskedItem, scores: Scores) -> AskedItem:
    """The item without the answers that have no score: of labels, one answer less is one comparison less."""
    known = [one for one in item.answers if scores.by in scores.values.get(place_of(one), {})]
    return replace(item, answers=tuple(known))


@dataclass(frozen=True, slots=True)
class _Asked:
    """The items, and what all models are evaluated with."""

    benchmark: Benchmark
    items: Sequence[AskedItem]
    rows: int
    """Rows that could be read."""
    starter: Scores | None

    def model(self, scores: Scores) -> ModelEvaluation:
        """One model's figures."""
        unscored, examples = scores.unscored(self.items)
        made = self._figures(scores.scored(self._compared(scores)), scores)
        return ModelEvaluation(
            name=scores.name,
            kind="recorded" if scores.spec is None else "model",
            source=scores.source,
            fingerprint=None if scores.spec is None else scores.spec.fingerprint,
            by=scores.by,
            rows=ModelRows(
                used=self.rows - sum(unscored.values()),
                unscored=unscored,
                examples=examples,
            ),
            overall=made.overall,
            overall_by_rows=made.overall_by_rows,
            groups=made.groups | self._by_attribute(scores),
            groups_by_rows=made.groups_by_rows,
            by_ties=made.by_ties,
            length_baseline=made.length_baseline,
            starter_baseline=made.starter_baseline,
            doubts=made.doubts,
            labels=agreements(self.items, scores, self.starter) if self._is_of_labels else {},
            published=self._published(scores, made),
            notes=scores.notes,
        )

    @property
    def _is_of_labels(self) -> bool:
        return self.benchmark is LABELS

    def _compared(self, scores: Scores, name: str | None = None) -> list[AskedItem]:
        """The items as they are compared: rated answers by what people gave, others as they are."""
        if not self._is_of_labels:
            return list(self.items)
        rated = name or next((one for one in RATED if any(one in item.given for item in self.items)), "")
        if name is None and scores.by in RATED and any(scores.by in item.given for item in self.items):
            rated = scores.by
        return [_known(rated_by(item, rated), scores) for item in self.items]

    def _by_attribute(self, scores: Scores) -> dict[str, Figure]:
        """For labels: the pairs by each thing that people rated, compared by the model's column for it."""
        if not self._is_of_labels:
            return {}
        found = {}
        for name in sorted({name for item in self.items for name in item.given}, key=RATED.index):
            by = replace(scores, by=column_for(name, scores))
            made = self._figures(by.scored(self._compared(scores, name)), by)
            found[name] = made.overall
        return found

    def _figures(self, scored: Sequence[ScoredItem], scores: Scores) -> _Made:
        benchmark = self.benchmark
        figures = benchmark.figures(sorted({one.item.group for one in scored}))
        sums = Sums(benchmark.units(scored))
        lengths = (
            Sums(benchmark.units([by_length(one) for one in scored])),
            Sums(benchmark.units([by_length(one, -1.0) for one in scored])),
        )
        return _Made.of(scored, figures, sums, lengths, self._starter(scored, scores))

    def _starter(self, scored: Sequence[ScoredItem], scores: Scores) -> Sums | None:
        """The sums of the starter's scores of the same items; items that it cannot score are left out."""
        if self.starter is None:
            return None
        by = self.starter.by
        if self._is_of_labels and scores.by in self.starter.columns:
            by = scores.by
        found = [self.starter.of(one.item, by) for one in scored]
        return Sums(self.benchmark.units([one for one in found if one is not None]))

    def _published(self, scores: Scores, made: _Made) -> tuple[PublishedLine, ...]:
        lines: list[PublishedLine] = []
        for printed in published_results(self.benchmark.name, scores.published_name):
            lines += _beside(printed, made)
        return tuple(lines)

    def ensemble(self, several: Sequence[Scores]) -> ModelEvaluation:
        """The mean of the models' ranks of each item's answers, over the items that all could score."""
        ranked: list[ScoredItem] = []
        for item in self._compared(several[0]):
            found = [scores.of(item, scores.by) for scores in several]
            known = [one for one in found if one is not None]
            if len(known) == len(found):
                # Sorted, so that the order of the models changes no digit of the mean.
                ranks = sorted(average_ranks(np.array(one.scores)).tolist() for one in known)
                ranked.append(ScoredItem(item, tuple(np.mean(ranks, axis=0).tolist())))
        left = sum(item.rows for item in self.items) - sum(one.item.rows for one in ranked)
        made = self._figures(ranked, several[0])
        return ModelEvaluation(
            name="ensemble",
            kind="ensemble",
            source=", ".join(scores.name for scores in several),
            fingerprint=None,
            by="mean of ranks",
            rows=ModelRows(used=self.rows - left, unscored={"no_score_of_a_model": left} if left else {}),
            overall=made.overall,
            overall_by_rows=made.overall_by_rows,
            groups=made.groups,
            groups_by_rows=made.groups_by_rows,
            by_ties=made.by_ties,
            length_baseline=made.length_baseline,
            starter_baseline=made.starter_baseline,
            doubts=made.doubts,
        )

    def versus(self, first: Scores, second: Scores) -> Versus:
        """Two models on the items that both could score."""
        both: list[tuple[ScoredItem, ScoredItem]] = []
        for item in self._compared(first):
            one, other = first.of(item, first.by), second.of(item, second.by)
            if one is not None and other is not None:
                both.append((one, other))
        figures = self.benchmark.figures(sorted({one.item.group for one, _ in both}))
        sums = (
            Sums(self.benchmark.units([one for one, _ in both])),
            Sums(self.benchmark.units([other for _, other in both])),
        )
        signs = [
            (a.order, b.order) for one, other in both for a, b in zip(one.pairs(), other.pairs(), strict=True)
        ]
        count = len(signs)
        return Versus(
            first=first.name,
            second=second.name,
            rows=sum(one.item.rows for one, _ in both),
            overall=difference(*sums, figures.overall),
            agreement=sum(a == b for a, b in signs) / count if count else None,
            both_right=sum(a > 0 and b > 0 for a, b in signs) / count if count else None,
            both_wrong=sum(a < 0 and b < 0 for a, b in signs) / count if count else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """The figures of some scored items."""

    overall: Figure
    overall_by_rows: Figure | None
    groups: dict[str, Figure]
    groups_by_rows: dict[str, Figure]
    by_ties: ByTies
    length_baseline: Figure
    starter_baseline: Figure | None
    doubts: Doubts

    @classmethod
    def of(
        cls,
        scored: Sequence[ScoredItem],
        figures: Figures,
        sums: Sums,
        lengths: tuple[Sums, Sums],
        starter: Sums | None,
    ) -> _Made:
        """``lengths``: the sums where the longer answer counts as the better, and where the shorter does."""
        longer, shorter = lengths

        def figure(spec: Spec) -> Figure:
            """The figure, with what the baselines make of the same rows."""
            return replace(
                sums.figure(spec),
                length_only=longer.value(spec),
                starter=None if starter is None else starter.value(spec),
            )

        overall = figures.overall
        return cls(
            overall=figure(overall),
            overall_by_rows=None if figures.overall_by_rows is None else figure(figures.overall_by_rows),
            groups={name: figure(spec) for name, spec in figures.groups.items()},
            groups_by_rows={name: figure(spec) for name, spec in (figures.groups_by_rows or {}).items()},
            by_ties=ByTies(
                lost=sums.with_ties_lost(overall),
                half=sums.with_ties_half(overall),
                left_out=sums.without_ties(overall),
                own_rule=sums.value(overall),
            ),
            length_baseline=longer.figure(overall),
            starter_baseline=None if starter is None else starter.figure(overall),
            doubts=doubts(scored, sums, longer, shorter, overall),
        )


def _beside(printed: PublishedResult, made: _Made) -> list[PublishedLine]:
    """The printed figures beside those that were found; those of which no row was read are left out."""
    overall = made.overall_by_rows if printed.overall_is == "rows" and made.overall_by_rows else made.overall
    if printed.overall_is == "difficulties":
        overall = made.overall_by_rows or made.overall
    found: dict[str, tuple[float, Figure]] = {_OVERALL: (printed.overall, overall)}
    across = made.groups_by_rows if printed.difficulties_are == "rows" else {}
    for name, value in printed.values.items():
        figure = across.get(name) or made.groups.get(name)
        if figure is not None:
            found[name] = (value, figure)
    return [
        PublishedLine(
            figure=name,
            printed=value / 100,
            found=figure.accuracy,
            interval=figure.interval,
            off=figure.interval is not None and not _within(value / 100, figure.interval),
            source=printed.source,
            note=printed.corrected.get(name, ""),
        )
        for name, (value, figure) in found.items()
        if figure.accuracy is not None
    ]


def _within(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] - _ROUNDED <= value <= interval[1] + _ROUNDED


EVALUATE: Stage[ToEvaluate, Evaluation] = Stage(
    "evaluate", 1, Evaluation, None, lambda given, made, home: False, evaluate
)
