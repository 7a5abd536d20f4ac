from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.labels import label_from_oasst, label_from_scores, parse_label
from assay.core.schema import ATTRIBUTES

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def test_scores_are_clamped_then_rounded_half_to_even() -> None:
    # Worked by hand: -3 and 9.9 are clamped to 0 and 4; of two whole numbers equally near, the even one.
    values = [-3.0, 9.9, 0.5, 1.5, 2.5, 3.5, 3.499, math.inf, -math.inf]
    assert label_from_scores(ATTRIBUTES, values) == (
        "quality:0,toxicity:4,humor:0,creativity:2,helpfulness:2,"
        "correctness:4,coherence:3,complexity:4,verbosity:0"
    )


def test_nemotron_340bs_seed_example_has_its_published_label() -> None:
    # The model card's scores; each is rounded to the nearest by hand.
    scores = [1.6171875, 1.6484375, 3.3125, 0.546875, 0.515625]
    assert label_from_scores(HELPSTEER, scores) == (
        "helpfulness:2,correctness:2,coherence:3,complexity:1,verbosity:1"
    )


@given(st.permutations(HELPSTEER))
def test_attributes_go_by_name_in_nemos_order(names: list[str]) -> None:
    value = dict(zip(HELPSTEER, (4.0, 3.0, 2.0, 1.0, 0.0), strict=True))
    assert label_from_scores(names, [value[name] for name in names]) == (
        "helpfulness:4,correctness:3,coherence:2,complexity:1,verbosity:0"
    )


def test_attributes_that_labels_do_not_have_are_left_out() -> None:
    assert label_from_scores(["reward", "quality"], [-17.0, 1.0]) == "quality:1"
    with pytest.raises(ValueError, match="none of reward"):
        label_from_scores(["reward"], [1.0])


def test_a_score_that_is_not_a_number_is_never_a_label() -> None:
    with pytest.raises(ValueError, match="correctness is not a number"):
        label_from_scores(["helpfulness", "correctness"], [1.0, math.nan])
    with pytest.raises(ValueError, match="twice"):
        label_from_scores(["quality", "quality"], [1.0, 2.0])


@given(st.dictionaries(st.sampled_from(ATTRIBUTES), st.floats(-9, 9), min_size=1))
def test_a_label_parses_to_whole_numbers_between_0_and_4(values: dict[str, float]) -> None:
    parsed = parse_label(label_from_scores(list(values), list(values.values())))
    assert list(parsed) == [name for name in ATTRIBUTES if name in values]
    for name, whole in parsed.items():
        assert 0 <= whole <= 4
        assert abs(whole - min(4.0, max(0.0, values[name]))) <= 0.5


@pytest.mark.parametrize(
    "label", ["", "quality", "quality:", "quality:1,", "qualify:1", "quality:1,quality:2", "quality:1.5"]
)
def test_what_is_no_label_does_not_parse(label: str) -> None:
    with pytest.raises(ValueError, match="no label"):
        parse_label(label)


def test_oasst_values_are_rounded_half_to_even_in_nemos_order() -> None:
    # By hand: 0.125*4 = 0.5 → 0, 0.375*4 = 1.5 → 2, 0.625*4 = 2.5 → 2, 0.875*4 = 3.5 → 4.
    values = {"creativity": 0.875, "humor": 0.625, "violence": 1.0, "toxicity": 0.375, "quality": 0.125}
    assert label_from_oasst(values) == "quality:0,toxicity:2,humor:2,creativity:4"
    # 1/3*4 = 1.33 → 1, 0.7*4 = 2.8 → 3; what is absent is left out.
    assert label_from_oasst({"humor": 1 / 3, "toxicity": 0.7}) == "toxicity:3,humor:1"
    assert label_from_oasst({"violence": 0.5}) == ""
