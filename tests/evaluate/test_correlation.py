"""Rank correlations against plain loops and worked numbers."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.evaluate.correlation import average_ranks, kendall, spearman, spearman_interval

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=25)


def kendall_by_pairs(rows: list[tuple[int, int]]) -> float | None:
    """Tau-b by its definition, over all pairs."""
    agree = left = right = 0
    for (a, b), (c, d) in itertools.combinations(rows, 2):
        x, y = (a > c) - (a < c), (b > d) - (b < d)
        agree += x * y
        left += x != 0
        right += y != 0
    return agree / math.sqrt(left * right) if left and right else None


@given(PAIRS)
def test_kendall_is_what_all_pairs_give(rows: list[tuple[int, int]]) -> None:
    expected = kendall_by_pairs(rows)
    found = kendall([a for a, _ in rows], [b for _, b in rows])
    assert found == (None if expected is None else pytest.approx(expected))


def test_spearman_is_pearson_of_the_ranks() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 4, 2, 3, 1: of each less 2.5, -1.5, 0, 0, 1.5 and 1.5, -0.5, 0.5, -1.5.
    left, right = np.array([1.0, 5.0, 5.0, 9.0]), np.array([8.0, 3.0, 4.0, 1.0])
    assert average_ranks(left).tolist() == [1.0, 2.5, 2.5, 4.0]
    assert spearman(left, right) == pytest.approx(-4.5 / math.sqrt(4.5 * 5.0))
    assert spearman(left, np.ones(4)) is None


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_does_not_depend_on_the_order_of_the_rows(seed: int) -> None:
    own = random.Random(seed)
    rows = [(own.randrange(5), own.randrange(5), bytes([own.randrange(6)])) for _ in range(30)]

    def interval() -> tuple[float, float] | None:
        left, right, clusters = zip(*rows, strict=True)
        return spearman_interval(np.array(left, float), np.array(right, float), clusters)

    before = interval()
    own.shuffle(rows)
    assert before is not None
    assert interval() == before
