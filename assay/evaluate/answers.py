"""Items with their scores: the pairs of their answers, and what a benchmark sums over these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from assay.evaluate.figures import ALL, Floats, ResampledUnit
from assay.evaluate.items import AskedItem, ItemAnswer

Places: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """Two answers of an item, the better one first."""

    better: ItemAnswer
    worse: ItemAnswer
    better_score: float
    worse_score: float

    @property
    def margin(self) -> float:
        """How much better the better answer is scored; 0 for a tie."""
        return self.better_score - self.worse_score

    @property
    def order(self) -> int:
        """1 where the better answer scores higher, -1 where it scores lower, 0 for a tie."""
        return (self.margin > 0) - (self.margin < 0)


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """An item and its answers' scores, none of which is missing."""

    item: AskedItem
    scores: tuple[float, ...]

    def pairs(self) -> list[ComparedPair]:
        """Every better answer with every worse one."""
        scored = list(zip(self.item.answers, self.scores, strict=True))
        return [
            ComparedPair(better, worse, high, low)
            for better, high in scored
            for worse, low in scored
            if better.worth > worse.worth
        ]

    @property
    def key(self) -> tuple[bytes, ...]:
        """Orders items, whatever the order of the rows and of the answers."""
        return (self.item.prompt, *sorted(answer.key for answer in self.item.answers), self.item.id.encode())


UnitsOf = Callable[[Sequence[ScoredItem]], list[ResampledUnit]]
"""What a benchmark makes of scored items."""


def strict(pair: ComparedPair) -> float:
    """A point where the better answer scores strictly higher."""
    return float(pair.margin > 0)


def summed(
    pairs: Sequence[ComparedPair], points: Callable[[ComparedPair], float] = strict
) -> tuple[float, float, float, float]:
    """Points, strict wins, ties and comparisons."""
    margins = [pair.margin for pair in pairs]
    return (
        sum(map(points, pairs)),
        float(sum(margin > 0 for margin in margins)),
        float(sum(margin == 0 for margin in margins)),
        float(len(pairs)),
    )


def pair_units(
    items: Sequence[ScoredItem], points: Callable[[ComparedPair], float] = strict
) -> list[ResampledUnit]:
    """A unit for each item: every pair of its answers is a comparison."""
    return [ResampledUnit(one.item.group, one.key, {ALL: summed(one.pairs(), points)}) for one in items]


def in_canonical_order(item: AskedItem) -> AskedItem:
    """The item with its answers in an order that is not that of the row: the better ones first."""
    return replace(item, answers=tuple(sorted(item.answers, key=lambda one: (-one.worth, one.key))))


def lengths(items: Sequence[AskedItem]) -> list[tuple[float, ...]]:
    """The number of characters of each answer, in place of its score."""
    return [tuple(float(answer.characters) for answer in item.answers) for item in items]


def flat(scores: Sequence[tuple[float, ...]]) -> Floats:
    """All scores one after the other."""
    return np.array([score for one in scores for score in one], dtype=np.float64)
