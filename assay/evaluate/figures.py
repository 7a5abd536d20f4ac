"""Figures out of sums: shares, means of shares, and their bootstrap intervals.

A benchmark turns items and scores into *units*: what is resampled as a whole, such as all items of one
prompt. A unit has a stratum (a domain, a subset) and numbers that are summed. Each figure is a recipe over
these sums, so that one resampling serves all figures, and equal units give equal intervals in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

#: What a unit sums in each block: points by the benchmark's own rule, strict wins, ties, comparisons.
POINTS, WINS, TIES, TOTAL = range(4)
#: The block that every unit has. Others are parts of it, such as a difficulty.
ALL = "all"

RESAMPLES = 1000
SEED = 16
_INTERVAL = (2.5, 97.5)
#: Weights of so many numbers are held at once.
_HELD = 1 << 22


@dataclass(frozen=True, slots=True)
class ResampledUnit:
    """Sums of one unit: for each block its points, wins, ties and comparisons."""

    stratum: str
    key: tuple[bytes, ...]
    """Orders the units of a stratum, whatever the order of the rows."""
    sums: dict[str, tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True)
class Share:
    """Points per comparison in one block, over the rows of some strata."""

    strata: tuple[str, ...]
    block: str = ALL


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of recipes, each with its weight. One of which there is no row counts nothing."""

    parts: tuple[tuple[float, Recipe], ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of recipes, each times its factor; nothing where one of them has no row."""

    parts: tuple[tuple[float, Recipe], ...]


Recipe: TypeAlias = "Share | Mean | Sum"


@dataclass(frozen=True, slots=True)
class Spec:
    """How a figure is made, and which comparisons it counts."""

    recipe: Recipe
    strata: tuple[str, ...]
    block: str = ALL


def share(*strata: str, block: str = ALL) -> Spec:
    """The share of points over the rows of these strata, which are its counts too."""
    return Spec(Share(strata, block), strata, block)


def mean_of(groups: Sequence[Sequence[str]], block: str = ALL) -> Spec:
    """The mean of the groups' shares, each group of the same weight."""
    parts = tuple((1.0, Share(tuple(group), block)) for group in groups)
    return Spec(Mean(parts), tuple(one for group in groups for one in group), block)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its counts. Shares are from 0 to 1."""

    accuracy: float | None
    """By the benchmark's own rule; null without a comparison."""
    correct: int | float
    """Points by that rule: a tie of several best answers may give a part of one."""
    total: int
    """Comparisons."""
    ties: int
    """Comparisons of equal scores, whatever the rule makes of them."""
    interval: tuple[float, float] | None
    """95%, by bootstrap; null where fewer than two prompts are there to be resampled."""
    length_only: float | None = None
    """The same figure where the longer answer counts as the better."""
    starter: float | None = None
    """The same figure of the starter model; null where it was not asked."""


class Sums:
    """The sums of units by stratum and block: of all units, and of each resampling of them."""

    def __init__(self, units: Sequence[ResampledUnit], *, seed: int = SEED) -> None:
        """The sums of these units, and of ``RESAMPLES`` resamplings within each stratum."""
        self._strata = sorted({unit.stratum for unit in units})
        self._blocks = sorted({name for unit in units for name in unit.sums})
        shape = (len(self._strata), len(self._blocks), 4)
        self._here = np.zeros(shape)
        self._drawn = np.zeros((RESAMPLES, *shape))
        self._units: dict[str, int] = {}
        for place, stratum in enumerate(self._strata):
            chosen = sorted((unit for unit in units if unit.stratum == stratum), key=lambda unit: unit.key)
            self._units[stratum] = len({unit.key[0] for unit in chosen})
            values = _by_prompt(chosen, self._blocks)
            self._here[place] = values.sum(axis=0)
            # Of the stratum's name alone, so that no other stratum changes its draws.
            random = np.random.default_rng([seed, *stratum.encode()])
            flat = values.reshape(len(values), -1)
            for first, weights in _weights(random, len(values)):
                drawn = weights @ flat
                self._drawn[first : first + len(weights), place] = drawn.reshape(-1, *values.shape[1:])

    def value(self, spec: Spec) -> float | None:
        """The figure, by the benchmark's own rule on ties; None without a comparison."""
        return _number(self._worked(spec.recipe, self._here))

    def with_ties_lost(self, spec: Spec) -> float | None:
        """The figure with no point for a tie."""
        here = self._here.copy()
        here[..., POINTS] = here[..., WINS]
        return _number(self._worked(spec.recipe, here))

    def with_ties_half(self, spec: Spec) -> float | None:
        """The figure with half a point for each tie."""
        here = self._here.copy()
        here[..., POINTS] = here[..., WINS] + here[..., TIES] / 2
        return _number(self._worked(spec.recipe, here))

    def without_ties(self, spec: Spec) -> float | None:
        """The figure over the comparisons that are no tie."""
        here = self._here.copy()
        here[..., POINTS] = here[..., WINS]
        here[..., TOTAL] = here[..., TOTAL] - here[..., TIES]
        return _number(self._worked(spec.recipe, here))

    def draws(self, spec: Spec) -> Floats:
        """The figure of each resampling; NaN where one has no comparison."""
        return self._worked(spec.recipe, self._drawn)

    def counts(self, spec: Spec) -> tuple[float, int, int]:
        """Points, comparisons and ties."""
        block = self._blocks.index(spec.block) if spec.block in self._blocks else None
        places = [self._strata.index(one) for one in spec.strata if one in self._strata]
        if block is None or not places:
            return 0.0, 0, 0
        found = self._here[places, block].sum(axis=0)
        return float(found[POINTS]), round(found[TOTAL]), round(found[TIES])

    def figure(self, spec: Spec) -> Figure:
        """The figure with its counts and its interval."""
        points, total, ties = self.counts(spec)
        resampled = sum(self._units.get(one, 0) for one in spec.strata)
        return Figure(
            accuracy=self.value(spec),
            correct=round(points) if abs(points - round(points)) < 1e-9 else points,
            total=total,
            ties=ties,
            interval=interval(self.draws(spec)) if resampled > 1 else None,
        )

    def _worked(self, recipe: Recipe, sums: Floats) -> Floats:
        """The recipe over sums of shape (…, strata, blocks, 4); NaN where it has no comparison."""
        if isinstance(recipe, Share):
            places = [self._strata.index(one) for one in recipe.strata if one in self._strata]
            if not places or recipe.block not in self._blocks:
                return np.full(sums.shape[:-3], np.nan)
            found = sums[..., places, self._blocks.index(recipe.block), :].sum(axis=-2)
            return _divided(found[..., POINTS], found[..., TOTAL])
        parts = [(weight, self._worked(one, sums)) for weight, one in recipe.parts]
        summed, weights = np.zeros(sums.shape[:-3]), np.zeros(sums.shape[:-3])
        for weight, found in parts:
            if isinstance(recipe, Sum):
                summed = summed + weight * found
            else:
                there = ~np.isnan(found)
                weights = weights + weight * there
                summed = summed + weight * np.where(there, found, 0.0)
        return summed if isinstance(recipe, Sum) else _divided(summed, weights)


def _divided(parts: Floats, wholes: Floats) -> Floats:
    """Each part by its whole; NaN where the whole is nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(wholes > 0, parts / wholes, np.nan)


def _by_prompt(units: Sequence[ResampledUnit], blocks: Sequence[str]) -> Floats:
    """The sums of each prompt's units: (prompts, blocks, 4). Units are sorted by their keys."""
    prompts: dict[bytes, int] = {}
    for unit in units:
        prompts.setdefault(unit.key[0], len(prompts))
    values = np.zeros((len(prompts), len(blocks), 4))
    for unit in units:
        for name, sums in unit.sums.items():
            values[prompts[unit.key[0]], blocks.index(name)] += sums
    return values


def _weights(random: np.random.Generator, count: int) -> Iterator[tuple[int, Floats]]:
    """Yield how often each of ``count`` units is drawn, for some resamplings at a time, and their first."""
    at_once = max(1, min(RESAMPLES, _HELD // count))
    for first in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - first)
        yield first, random.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)


def interval(draws: Floats) -> tuple[float, float] | None:
    """The 95% interval of resampled values; None where none is a number."""
    known = draws[~np.isnan(draws)]
    if not known.size:
        return None
    low, high = np.percentile(known, _INTERVAL)
    return float(low), float(high)


def _number(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)
