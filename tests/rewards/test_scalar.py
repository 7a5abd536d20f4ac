"""One number from several, as the card that publishes the weights computes it."""

from __future__ import annotations

import pytest

from assay.core.errors import UserMistake
from assay.core.schema import ATTRIBUTES
from assay.rewards.scalar import NEMOTRON_4_340B_FACTORS, weighted_scalar

SEED_EXAMPLE = {
    "helpfulness": 1.6171875,
    "correctness": 1.6484375,
    "coherence": 3.3125,
    "complexity": 0.546875,
    "verbosity": 0.515625,
}


def test_the_published_seed_example_gives_the_published_scalar() -> None:
    scalar = weighted_scalar(tuple(SEED_EXAMPLE), tuple(SEED_EXAMPLE.values()), NEMOTRON_4_340B_FACTORS)
    assert scalar == pytest.approx(3.315625, rel=0, abs=1e-12)


def test_values_are_matched_by_name_and_unweighted_ones_count_nothing() -> None:
    names = tuple(reversed(ATTRIBUTES))
    values = [SEED_EXAMPLE.get(name, 99.0) for name in names]
    assert weighted_scalar(names, values, NEMOTRON_4_340B_FACTORS) == pytest.approx(3.315625, abs=1e-12)


def test_a_weight_for_what_the_model_does_not_rate_is_refused() -> None:
    with pytest.raises(UserMistake, match="given to verbosity, which the model does not rate"):
        weighted_scalar(("helpfulness",), (1.0,), {"helpfulness": 0.5, "verbosity": -0.1})
    with pytest.raises(UserMistake, match="at least one weight"):
        weighted_scalar(("helpfulness",), (1.0,), {})
