from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core import steerlm
from assay.core.schema import STEERLM_ATTRIBUTES, Message

USER = Message("user", "Name a colour.")
RED = Message("assistant", "Red — “rouge”.")
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def test_a_row_has_nemos_keys_in_nemos_order() -> None:
    row = steerlm.to_row([USER, RED], [None, "quality:3"])
    assert list(row) == ["conversations", "system", "mask", "type"]
    assert [list(turn) for turn in row["conversations"]] == [["value", "from", "label"]] * 2
    assert (row["mask"], row["type"]) == ("User", "VALUE_TO_TEXT")


def test_a_line_is_what_nemo_writes_to_the_byte() -> None:
    # Written out from the rules: keys in order, ", " and ": " between, no ASCII escapes, one line end.
    expected = (
        '{"conversations": [{"value": "Name a colour.", "from": "User", "label": null}, '
        '{"value": "Red — “rouge”.", "from": "Assistant", "label": "quality:3,humor:0"}], '
        '"system": "A chat between a curious user and an artificial intelligence assistant. The assistant '
        "gives helpful, detailed, and polite answers to the user's questions.\", "
        '"mask": "User", "type": "VALUE_TO_TEXT"}\n'
    )
    assert steerlm.to_line([USER, RED], [None, "quality:3,humor:0"]) == expected.encode()


def test_a_missing_label_is_no_key_and_an_empty_one_is_kept() -> None:
    turns = steerlm.to_row([USER, RED, USER, RED], [None, None, None, ""])["conversations"]
    assert "label" not in turns[1]
    assert turns[3]["label"] == ""
    assert turns[0]["label"] is turns[2]["label"] is None
    assert "label" not in steerlm.to_row([USER, RED], None)["conversations"][1]


def test_a_users_label_is_null_whatever_it_came_with() -> None:
    assert steerlm.to_row([USER, RED], ["quality:4", None])["conversations"][0]["label"] is None


def test_a_system_message_of_the_row_replaces_the_fixed_sentence() -> None:
    row = steerlm.to_row([Message("system", "Be brief."), USER, RED], None)
    assert row["system"] == "Be brief."
    assert [turn["from"] for turn in row["conversations"]] == ["User", "Assistant"]
    assert steerlm.to_row([USER, RED], None)["system"] == steerlm.NEMO_SYSTEM


@pytest.mark.parametrize(
    ("roles", "code"),
    [
        (["user", "assistant"], None),
        (["system", "user", "assistant"], None),
        (["assistant", "assistant"], None),
        (["user", "system", "assistant"], "late_system_message"),
        (["system", "user", "system", "assistant"], "several_system_messages"),
        (["user", "tool", "assistant"], "tool_message"),
    ],
)
def test_what_a_row_cannot_express_is_named(roles: list[str], code: str | None) -> None:
    messages = [Message(role, "x") for role in roles]
    reason = steerlm.gap(messages)
    assert (reason and reason.partition(":")[0]) == code
    if code is not None:
        with pytest.raises(ValueError, match=code):
            steerlm.to_row(messages, None)


def test_labels_must_be_one_a_message() -> None:
    with pytest.raises(ValueError, match="zip"):
        steerlm.to_row([USER, RED], [None])


def test_scores_are_clamped_then_rounded_half_to_even() -> None:
    # Worked by hand: -3 and 9.9 are clamped to 0 and 4; of two whole numbers equally near, the even one.
    values = [-3.0, 9.9, 0.5, 1.5, 2.5, 3.5, 3.499, math.inf, -math.inf]
    assert steerlm.label_from_scores(STEERLM_ATTRIBUTES, values) == (
        "quality:0,toxicity:4,humor:0,creativity:2,helpfulness:2,"
        "correctness:4,coherence:3,complexity:4,verbosity:0"
    )


def test_nemotron_340bs_seed_example_has_its_published_label() -> None:
    # The model card's scores; each is rounded to the nearest by hand.
    scores = [1.6171875, 1.6484375, 3.3125, 0.546875, 0.515625]
    assert steerlm.label_from_scores(HELPSTEER, scores) == (
        "helpfulness:2,correctness:2,coherence:3,complexity:1,verbosity:1"
    )


@given(st.permutations(HELPSTEER))
def test_attributes_go_by_name_in_nemos_order(names: list[str]) -> None:
    value = dict(zip(HELPSTEER, (4.0, 3.0, 2.0, 1.0, 0.0), strict=True))
    assert steerlm.label_from_scores(names, [value[name] for name in names]) == (
        "helpfulness:4,correctness:3,coherence:2,complexity:1,verbosity:0"
    )


def test_attributes_that_steerlm_does_not_know_are_left_out() -> None:
    assert steerlm.label_from_scores(["reward", "quality"], [-17.0, 1.0]) == "quality:1"
    with pytest.raises(ValueError, match="none of reward"):
        steerlm.label_from_scores(["reward"], [1.0])


def test_a_score_that_is_not_a_number_is_never_a_label() -> None:
    with pytest.raises(ValueError, match="correctness is not a number"):
        steerlm.label_from_scores(["helpfulness", "correctness"], [1.0, math.nan])
    with pytest.raises(ValueError, match="twice"):
        steerlm.label_from_scores(["quality", "quality"], [1.0, 2.0])


@given(st.dictionaries(st.sampled_from(STEERLM_ATTRIBUTES), st.floats(-9, 9), min_size=1))
def test_a_label_parses_to_whole_numbers_between_0_and_4(values: dict[str, float]) -> None:
    parsed = steerlm.parse_label(steerlm.label_from_scores(list(values), list(values.values())))
    assert list(parsed) == [name for name in STEERLM_ATTRIBUTES if name in values]
    for name, whole in parsed.items():
        assert 0 <= whole <= 4
        assert abs(whole - min(4.0, max(0.0, values[name]))) <= 0.5


@pytest.mark.parametrize(
    "label", ["", "quality", "quality:", "quality:1,", "qualify:1", "quality:1,quality:2", "quality:1.5"]
)
def test_what_is_no_label_does_not_parse(label: str) -> None:
    with pytest.raises(ValueError, match="no SteerLM label"):
        steerlm.parse_label(label)


def test_oasst_values_are_rounded_half_to_even_in_nemos_order() -> None:
    # By hand: 0.125*4 = 0.5 → 0, 0.375*4 = 1.5 → 2, 0.625*4 = 2.5 → 2, 0.875*4 = 3.5 → 4.
    values = {"creativity": 0.875, "humor": 0.625, "violence": 1.0, "toxicity": 0.375, "quality": 0.125}
    assert steerlm.label_from_oasst(values) == "quality:0,toxicity:2,humor:2,creativity:4"
    # 1/3*4 = 1.33 → 1, 0.7*4 = 2.8 → 3; what is absent is left out.
    assert steerlm.label_from_oasst({"humor": 1 / 3, "toxicity": 0.7}) == "toxicity:3,humor:1"
    assert steerlm.label_from_oasst({"violence": 0.5}) == ""


def test_the_regression_format_reads_up_to_the_label_prefix() -> None:
    rows = list(steerlm.regression_rows([USER, RED, USER, RED], [None, "humor:1,verbosity:4", None, ""]))
    # Written out from NeMo-Aligner's templates; the turn with an empty label is left out.
    assert rows == [
        {
            "text": (
                "<extra_id_0>System\nA chat between a curious user and an artificial intelligence assistant. "
                "The assistant gives helpful, detailed, and polite answers to the user's questions.\n"
                "<extra_id_1>User\nName a colour.\n<extra_id_1>Assistant\nRed — “rouge”.\n<extra_id_2>"
            ),
            "label": [-100.0, -100.0, 1.0, -100.0, -100.0, -100.0, -100.0, -100.0, 4.0],
        }
    ]


def test_the_regression_format_keeps_what_came_before_a_turn() -> None:
    first, second = steerlm.regression_rows([USER, RED, USER, RED], [None, "quality:1", None, "quality:2"])
    assert second["text"].startswith(first["text"].removesuffix("<extra_id_2>"))
    assert second["label"][0] == 2.0


def test_the_regression_formats_system_sentence_is_nemos() -> None:
    (row,) = steerlm.regression_rows([Message("system", "Be brief."), USER, RED], [None, None, "quality:1"])
    assert row["text"].startswith(f"<extra_id_0>System\n{steerlm.NEMO_SYSTEM}\n<extra_id_1>User\n")


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text())))
def test_any_text_round_trips_through_a_line(turns: list[tuple[str, str]]) -> None:
    row = json.loads(steerlm.to_line([Message(*turn) for turn in turns], None))
    assert [(turn["from"].lower(), turn["value"]) for turn in row["conversations"]] == turns
