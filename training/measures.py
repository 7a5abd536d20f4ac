"""How well scores agree with people, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

Values = np.ndarray
Statistic = Callable[[Values], float]

RESAMPLES = 2_000
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model beside the baseline, over the same held-out rows."""

    n: int
    groups: int
    model: Estimate
    length_only: Estimate
    difference: Estimate
    """Model minus length, resampled together."""

    def as_json(self) -> dict[str, object]:
        """Plain numbers, rounded to four digits."""

        def rounded(estimate: Estimate) -> dict[str, float]:
            return {name: round(value, 4) for name, value in asdict(estimate).items()}

        return {
            "n": self.n,
            "groups": self.groups,
            "model": rounded(self.model),
            "length_only": rounded(self.length_only),
            "difference": rounded(self.difference),
        }


def average_ranks(values: Values) -> Values:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(left: Values, right: Values) -> float:
    """Rank correlation; 0 where one side is constant."""
    a, b = average_ranks(left), average_ranks(right)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0


def pairwise_accuracy(margins: Values) -> float:
    """The share of positive margins; a tie counts half."""
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def over(figure: Callable[..., float], *columns: Values) -> Statistic:
    """The statistic that takes ``figure`` of the rows of ``columns``."""

    def statistic(rows: Values) -> float:
        return figure(*(column[rows] for column in columns))

    return statistic


def compare(groups: Sequence[str], model: Statistic, length_only: Statistic, *, seed: int) -> Comparison:
    """Both statistics with intervals; whole groups are resampled, since rows of one group are alike.

    A statistic takes row indices (int64, with repetitions) and gives a number.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    rows_of = [np.flatnonzero(member == group) for group in range(len(names))]
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rows_of[g] for g in random.integers(len(names), size=len(names))])
        draws.append((model(rows), length_only(rows)))
    resampled = np.array(draws)
    everything = np.arange(len(groups))
    here = np.array([model(everything), length_only(everything)])

    def estimate(value: float, draws: Values) -> Estimate:
        low, high = np.percentile(draws, INTERVAL)
        return Estimate(float(value), float(low), float(high))

    return Comparison(
        len(groups),
        len(names),
        estimate(here[0], resampled[:, 0]),
        estimate(here[1], resampled[:, 1]),
        estimate(here[0] - here[1], resampled[:, 0] - resampled[:, 1]),
    )
