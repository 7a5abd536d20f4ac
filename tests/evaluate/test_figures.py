"""Figures over sums, and their intervals."""

from __future__ import annotations

import random

import numpy as np
import pytest

from assay.evaluate.figures import (
    ALL,
    RESAMPLES,
    Figure,
    Mean,
    ResampledUnit,
    Share,
    Spec,
    Sum,
    Sums,
    mean_of,
    share,
)


def unit(stratum: str, prompt: int, points: float, total: int = 1) -> ResampledUnit:
    return ResampledUnit(stratum, (b"%d" % prompt,), {ALL: (points, points, 0.0, float(total))})


UNITS = [unit("a", n, float(n < 6)) for n in range(10)] + [unit("b", n, float(n < 1)) for n in range(4)]


def test_recipes_over_strata() -> None:
    sums = Sums(UNITS)
    assert sums.value(share("a", "b")) == 7 / 14
    assert sums.value(mean_of([["a"], ["b"]])) == pytest.approx((6 / 10 + 1 / 4) / 2)
    weighed = Mean(((3.0, Share(("a",))), (1.0, Share(("b",)))))
    assert sums.value(Spec(weighed, ("a", "b"))) == pytest.approx((3 * 0.6 + 0.25) / 4)
    assert sums.value(Spec(Sum(((2.0, Share(("a",))), (0.5, Share(("b",))))), ("a",))) == pytest.approx(1.325)
    # What is not there counts nothing in a mean, and leaves no sum.
    assert sums.value(mean_of([["a"], ["nowhere"]])) == 0.6
    assert sums.value(Spec(Sum(((1.0, Share(("nowhere",))),)), ())) is None


def test_an_interval_is_that_of_resampled_rows() -> None:
    """Against a plain loop with a generator of its own: both estimate the same quantiles."""
    found = Sums(UNITS).figure(share("a"))
    own = random.Random(1)
    draws = sorted(sum(own.choice((1,) * 6 + (0,) * 4) for _ in range(10)) / 10 for _ in range(20_000))
    assert found.interval is not None
    assert found.interval[0] == pytest.approx(draws[500], abs=0.1001)
    assert found.interval[1] == pytest.approx(draws[19_500], abs=0.1001)
    assert (found.correct, found.total, found.accuracy) == (6, 10, 0.6)


def test_rows_of_one_prompt_are_resampled_together() -> None:
    apart = [unit("a", n, float(n % 2)) for n in range(40)]
    together = [unit("a", n % 2, float(n % 2)) for n in range(40)]
    assert Sums(together).draws(share("a")).std() > 3 * Sums(apart).draws(share("a")).std()
    assert Sums([unit("a", 0, 1.0)] * 5).figure(share("a")).interval is None


def test_another_stratum_changes_no_interval_and_neither_does_the_order() -> None:
    alone = Sums([one for one in UNITS if one.stratum == "a"]).figure(share("a"))
    assert Sums(UNITS[::-1]).figure(share("a")) == alone
    forth, back = Sums(UNITS).draws(share("a")), Sums(UNITS[::-1]).draws(share("a"))
    assert forth.shape == (RESAMPLES,)
    assert np.array_equal(forth, back)


def test_without_rows_there_is_no_figure() -> None:
    nothing = Figure(accuracy=None, correct=0, total=0, ties=0, interval=None)
    assert Sums([]).figure(share("a")) == nothing
    assert np.isnan(Sums([]).draws(share("a"))).all()
