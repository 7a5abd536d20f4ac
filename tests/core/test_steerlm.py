from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core import steerlm
from assay.core.schema import ROLES, Message

USER = Message("user", "Name a colour.")
RED = Message("assistant", "Red — “rouge”.")


def test_a_row_has_nemos_keys_in_nemos_order() -> None:
    row = steerlm.to_row([USER, RED], [None, "quality:3"])
    assert list(row) == ["conversations", "system", "mask", "type"]
    assert [list(turn) for turn in row["conversations"]] == [["value", "from", "label"]] * 2
    assert (row["mask"], row["type"]) == ("User", "VALUE_TO_TEXT")


def test_a_rows_json_is_what_nemo_writes_to_the_byte() -> None:
    # Written out from the rules: keys in order, ", " and ": " between, no ASCII escapes.
    expected = (
        '{"conversations": [{"value": "Name a colour.", "from": "User", "label": null}, '
        '{"value": "Red — “rouge”.", "from": "Assistant", "label": "quality:3,humor:0"}], '
        '"system": "A chat between a curious user and an artificial intelligence assistant. The assistant '
        "gives helpful, detailed, and polite answers to the user's questions.\", "
        '"mask": "User", "type": "VALUE_TO_TEXT"}'
    )
    assert steerlm.to_json([USER, RED], [None, "quality:3,humor:0"]) == expected.encode()


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
    ("roles", "reason"),
    [
        ("", None),
        ("ua", None),
        ("sua", None),
        ("aa", None),
        ("usa", "late_system_message: message 2 is a system message"),
        ("susa", "several_system_messages: message 3 is another one"),
        ("ssua", "several_system_messages: message 2 is another one"),
        ("uta", "tool_message: message 2 is a tool's"),
        ("ta", "tool_message: message 1 is a tool's"),
        ("suatsa", "tool_message: message 4 is a tool's"),
    ],
)
def test_what_a_row_cannot_express_is_named(roles: str, reason: str | None) -> None:
    assert steerlm.gap(roles) == reason
    if reason is not None:
        messages = [Message({role[0]: role for role in ROLES}[letter], "x") for letter in roles]
        with pytest.raises(ValueError, match=reason):
            steerlm.to_row(messages, None)


def test_labels_must_be_one_a_message() -> None:
    with pytest.raises(ValueError, match="zip"):
        steerlm.to_row([USER, RED], [None])


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
def test_any_text_round_trips_through_json(turns: list[tuple[str, str]]) -> None:
    row = json.loads(steerlm.to_json([Message(*turn) for turn in turns], None))
    assert [(turn["from"].lower(), turn["value"]) for turn in row["conversations"]] == turns
