"""Rank correlations, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from assay.evaluate.figures import RESAMPLES, SEED, Floats, interval

Places: TypeAlias = npt.NDArray[np.int64]

#: Beyond so many values Kendall's tau takes minutes here, and Spearman's intervals too.
MOST_RESAMPLED = 200_000


def average_ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs.

    >>> average_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def spearman(left: Floats, right: Floats) -> float | None:
    """Spearman's rank correlation; None where a side has fewer than two different values."""
    return _correlated(_places(left), _places(right), np.ones(len(left))) if len(left) else None


def _places(values: Floats) -> Places:
    """The place of each value among the different values, from 0."""
    places: Places = np.unique(values, return_inverse=True)[1]
    return places


def _correlated(left: Places, right: Places, weights: Floats) -> float | None:
    """Spearman's correlation where each value stands there ``weights`` times."""
    a, b = (_weighted_ranks(side, weights) for side in (left, right))
    total = weights.sum()
    a, b = a - (a @ weights) / total, b - (b @ weights) / total
    scale = math.sqrt(float((a * a) @ weights) * float((b * b) @ weights))
    return float((a * b) @ weights) / scale if scale > 0 else None


def _weighted_ranks(places: Places, weights: Floats) -> Floats:
    counts = np.bincount(places, weights)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def spearman_interval(left: Floats, right: Floats, clusters: Sequence[bytes]) -> tuple[float, float] | None:
    """The 95% interval of Spearman's correlation; the values of one cluster are resampled together.

    Equal rows give the same interval in any order. None with fewer than two clusters.
    """
    names = sorted(set(clusters))
    if len(names) < 2 or len(left) > MOST_RESAMPLED:
        return None
    order = np.array(sorted(range(len(left)), key=lambda one: (clusters[one], left[one], right[one])))
    number = {name: place for place, name in enumerate(names)}
    member: Places = np.array([number[clusters[one]] for one in order])
    sides = _places(left[order]), _places(right[order])
    random = np.random.default_rng(SEED)
    draws = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        found = _correlated(*sides, drawn[member].astype(np.float64))
        draws.append(math.nan if found is None else found)
    return interval(np.array(draws))


def kendall(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Kendall's tau-b; None where a side has fewer than two different values.

    Knight's algorithm: sorted by one side, discordant pairs are the inversions of the other.

    >>> kendall([1, 2, 3, 4], [1, 3, 2, 4])
    0.6666666666666666
    """
    count = len(left)
    pairs = sorted(zip(left, right, strict=True))
    total = count * (count - 1) // 2
    tied_left = _tied([a for a, _ in pairs])
    tied_both = _tied(pairs)
    second = [b for _, b in pairs]
    inversions = _inversions(second)
    tied_right = _tied(sorted(second))
    scale = math.sqrt(float(total - tied_left) * float(total - tied_right))
    if not scale:
        return None
    return (total - tied_left - tied_right + tied_both - 2 * inversions) / scale


def _tied(ordered: Sequence[object]) -> int:
    """The pairs of equal neighbours' runs."""
    pairs = run = 0
    for place in range(1, len(ordered)):
        run = run + 1 if ordered[place] == ordered[place - 1] else 0
        pairs += run
    return pairs


def _inversions(values: Sequence[float]) -> int:
    """The pairs of which the earlier value is greater, counted while merging ever longer sorted runs."""
    ordered, size, found = list(values), 1, 0
    while size < len(ordered):
        for start in range(0, len(ordered) - size, 2 * size):
            left, right = ordered[start : start + size], ordered[start + size : start + 2 * size]
            merged: list[float] = []
            taken = 0
            for value in right:
                while taken < len(left) and left[taken] <= value:
                    merged.append(left[taken])
                    taken += 1
                found += len(left) - taken
                merged.append(value)
            ordered[start : start + 2 * size] = merged + left[taken:]
        size *= 2
    return found
