"""What rules would do before anything is written: how many each drops, other thresholds, what is near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl

from assay.core.scale import round_numbers
from assay.select.columns import texts_of
from assay.select.expressions import Comparison
from assay.select.frames import Dataset, ToMeasure
from assay.select.judge import Verdicts, judged
from assay.select.measure import measured
from assay.select.rules import Rule, Rules
from assay.select.selection import Selection
from assay.select.tally import RuleTally, comparisons
from assay.storage.artifacts import read_artifact
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored
from assay.storage.stage import RunContext

#: Records that are shown on either side of a cut.
NEAR = 3
#: Steps of a ladder, about.
_STEPS = 6
#: Characters of an answer that are shown.
_EXCERPT = 60


@dataclass(frozen=True, slots=True)
class Rung:
    """What another threshold would keep."""

    threshold: str
    kept: int
    """Records that the comparison alone keeps."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A record near to a cut."""

    file: str
    line: int
    value: float
    answer: str
    """How its last turn begins."""


@dataclass(frozen=True, slots=True)
class PreviewedCut:
    """One comparison with a number: what other numbers would keep, and what lies near to this one."""

    comparison: Comparison
    asked: int
    """Records with a value."""
    ladder: tuple[Rung, ...]
    fails: tuple[Neighbour, ...]
    """Those for which it does not hold, the nearest first."""
    holds: tuple[Neighbour, ...]
    """Those for which it holds, the nearest first."""


@dataclass(frozen=True, slots=True)
class RulesPreview:
    """What rules would do."""

    read: int
    kept: int
    rules: tuple[RuleTally, ...]
    cuts: tuple[PreviewedCut, ...]
    notes: tuple[str, ...]


class _Near(NamedTuple):
    piece: int
    row: int
    value: float


def previewed(
    converted: Converted, scored: Scored, rules: Rules, selection: Selection, home: Home
) -> RulesPreview:
    """What the rules and the budget would do with these scores. Nothing is written that stays."""
    kept = read = 0
    with judged(converted, scored, rules, selection, RunContext(home)) as found:
        for verdicts in found.verdicts:
            read += verdicts.records.height
            kept += _kept(verdicts)
        tallies, notes = found.tallies(), found.notes()
    cuts = _cuts(
        rules.rules,
        Dataset(converted, scored, ToMeasure((), selection.group, tokenizers=selection.tokenizers), home),
    )
    return RulesPreview(read, kept, tallies, cuts, notes)


def _kept(verdicts: Verdicts) -> int:
    return int((verdicts.records["outcome"] == "kept").sum())


def _cuts(rules: Sequence[Rule], data: Dataset) -> tuple[PreviewedCut, ...]:
    """The cut of every comparison, of the values that records have: of a turn's value the last turn's."""
    compared = tuple(dict.fromkeys(one for rule in rules for one in comparisons(rule.predicate)))
    if not compared:
        return ()
    wanted = replace(data.wanted, expressions=tuple(one.value for one in compared))
    values: list[list[pl.DataFrame]] = [[] for _ in compared]
    with measured(Dataset(data.converted, data.scored, wanted, data.home)) as found:
        for number, frames in enumerate(found.frames):
            for one, kept in zip(compared, values, strict=True):
                kept.append(
                    frames.records.select(
                        pl.lit(number, pl.UInt32).alias("piece"),
                        "row",
                        pl.col(one.value.measured).cast(pl.Float64).alias("value"),
                    ).drop_nulls()
                )
    return tuple(_cut(one, pl.concat(kept), data) for one, kept in zip(compared, values, strict=True) if kept)


def _cut(comparison: Comparison, values: pl.DataFrame, data: Dataset) -> PreviewedCut:
    threshold = float(comparison.threshold)
    numbers = values["value"]
    low, high = numbers.quantile(0.05), numbers.quantile(0.95)
    steps = [] if low is None or high is None else round_numbers(low, high, _STEPS)
    rungs = []
    held = values.select(pl.col("value").cast(_dtype(comparison)).alias(comparison.value.measured))
    for step in sorted({*steps, threshold}):
        other = Comparison(comparison.value, comparison.operator, step)
        rungs.append(
            Rung(str(other).rpartition(" ")[2], int(held.select(other.expression().sum()).item() or 0))
        )
    sides = values.with_columns(
        held.select(holds=comparison.expression()).to_series().fill_null(False),
        away=(pl.col("value") - threshold).abs(),
    ).sort("away", "piece", "row")
    fails, holds = (sides.filter(pl.col("holds") == wanted).head(NEAR) for wanted in (False, True))
    return PreviewedCut(
        comparison,
        values.height,
        tuple(rungs),
        tuple(_neighbour(_Near(*row), data) for row in fails.drop("holds", "away").iter_rows()),
        tuple(_neighbour(_Near(*row), data) for row in holds.drop("holds", "away").iter_rows()),
    )


def _dtype(comparison: Comparison) -> type[pl.DataType]:
    return pl.Float32 if comparison.value.is_float32 else pl.Float64


def _neighbour(near: _Near, data: Dataset) -> Neighbour:
    piece = data.converted.pieces[near.piece]
    records = read_artifact(piece.records, data.home, ["row", "line", "roles", "messages"])
    line, roles, messages = records.row(near.row)[1:]
    return Neighbour(piece.file, line, near.value, texts_of(roles, messages, "answer")[:_EXCERPT])
