"""How many records each rule drops, and what to say of a rule that keeps nothing or everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl

from assay.core.text import counted
from assay.select.expressions import Comparison, EveryTurn, Operator, Predicate, ValueKind, outside
from assay.select.rules import Rule

#: The comparison that holds of the nearest value where one with this operator holds of none.
_HOLDS_OF_ONE: dict[Operator, tuple[Operator, str]] = {
    ">": (">=", "high"),
    ">=": (">=", "high"),
    "<": ("<=", "low"),
    "<=": ("<=", "low"),
}
#: The comparison that fails of the nearest value where one with this operator holds of all.
_FAILS_OF_ONE: dict[Operator, tuple[Operator, str]] = {
    ">": (">", "low"),
    ">=": (">", "low"),
    "<": ("<", "high"),
    "<=": ("<", "high"),
}


def comparisons(predicate: Predicate) -> tuple[Comparison, ...]:
    """The comparisons with a number that stand in a predicate, but for those of ``all`` and ``any``."""
    found = (part for part in outside(predicate, EveryTurn) if isinstance(part, Comparison))
    return tuple(dict.fromkeys(one for one in found if one.value.kind == ValueKind.NUMBER))


def held(rules: Sequence[Rule], frame: pl.DataFrame) -> pl.DataFrame:
    """A Boolean column for each rule, by its number; a rule that is left open does not hold."""
    return frame.select(
        [rule.predicate.expression().fill_null(False).alias(str(n)) for n, rule in enumerate(rules)]
    )


class Extent(NamedTuple):
    """The smallest and the largest value that a comparison met; None where it met none."""

    low: float | None = None
    high: float | None = None

    def with_values(self, low: float | None, high: float | None) -> Extent:
        """This extent, extended to these two."""
        lows = [one for one in (self.low, low) if one is not None]
        highs = [one for one in (self.high, high) if one is not None]
        return Extent(min(lows, default=None), max(highs, default=None))


@dataclass(frozen=True, slots=True)
class RuleTally:
    """What one rule came to."""

    rule: Rule
    asked: int = 0
    """Of how many records, or turns, it was asked."""
    fails: int = 0
    """How many of them fail it."""
    fails_alone: int = 0
    """How many fail it and no other rule."""
    extents: tuple[Extent, ...] = ()
    """Of each of ``comparisons``."""


class Tally:
    """Counts, frame by frame, what rules come to that are asked of one kind of thing."""

    def __init__(self, rules: Sequence[Rule], things: str) -> None:
        """``things`` are what the rules are asked of: ``records`` or ``turns``."""
        self._things = things
        self.rules = tuple(
            RuleTally(rule, extents=(Extent(),) * len(comparisons(rule.predicate))) for rule in rules
        )

    def add(self, frame: pl.DataFrame, answers: pl.DataFrame) -> None:
        """Count the ``answers`` of ``held`` for a frame."""
        if not self.rules or not frame.height:
            return
        failures = pl.sum_horizontal([~pl.col(name) for name in answers.columns])
        counts = answers.select(
            *[(~pl.col(name)).sum().alias(f"{name} fails") for name in answers.columns],
            *[(~pl.col(name) & (failures == 1)).sum().alias(f"{name} alone") for name in answers.columns],
        ).row(0, named=True)
        compared = [one for rule in self.rules for one in comparisons(rule.rule.predicate)]
        values = frame.select(
            [pl.col(one.value.measured).cast(pl.Float64).alias(str(n)) for n, one in enumerate(compared)]
        )
        lows = iter(values.select(pl.all().min()).rows()[0] if compared else ())
        highs = iter(values.select(pl.all().max()).rows()[0] if compared else ())
        self.rules = tuple(
            replace(
                rule,
                asked=rule.asked + frame.height,
                fails=rule.fails + counts[f"{number} fails"],
                fails_alone=rule.fails_alone + counts[f"{number} alone"],
                extents=tuple(extent.with_values(next(lows), next(highs)) for extent in rule.extents),
            )
            for number, rule in enumerate(self.rules)
        )

    def notes(self) -> Iterator[str]:
        """Yield a sentence for each rule that holds of nothing, or of everything."""
        for rule in self.rules:
            if rule.asked and rule.fails in (0, rule.asked):
                what = "all" if rule.fails == 0 else "none"
                yield (
                    f"`{rule.rule.text}` holds of {what} of {counted(rule.asked, self._things)}{_where(rule)}"
                )


def _where(rule: RuleTally) -> str:
    """Between what its values lie, and the nearest threshold that would not do the same."""
    nearest, what = (_HOLDS_OF_ONE, "keeps some") if rule.fails else (_FAILS_OF_ONE, "drops some")
    predicate = rule.rule.predicate
    ranges = [
        f"{one.value} goes from {_spelled(one, extent.low)} to {_spelled(one, extent.high)}"
        for one, extent in zip(comparisons(predicate), rule.extents, strict=True)
        if extent.low is not None and extent.high is not None
    ]
    if not ranges:
        return ""
    said = f": {', '.join(dict.fromkeys(ranges))}"
    if isinstance(predicate, Comparison) and predicate.operator in nearest:
        operator, end = nearest[predicate.operator]
        value = rule.extents[0].low if end == "low" else rule.extents[0].high
        said += f"; `{replace(predicate, operator=operator, threshold=float(value or 0.0))}` {what}"
    return said


def _spelled(comparison: Comparison, value: float) -> str:
    """The value, as a rule would spell it."""
    return str(replace(comparison, operator="==", threshold=float(value))).rpartition(" ")[2]
