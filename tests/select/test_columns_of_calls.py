"""Columns of conversations with calls of tools: a call is a message, and no turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade import Made, Record, Turn, make
from measuring import outcomes, values, values_of_turns

from assay.core.schema import Message, MessageFields, message_with
from assay.select.columns import texts_of
from assay.storage.conversations import conversation_json
from assay.storage.home import Home

CALL = message_with(
    "assistant", "", MessageFields(tool_calls='[{"function":{"name":"add"}}]', content_is="null")
)
RESULT = message_with("tool", "42", MessageFields(tool_call_id="c1"))
CHAT = (
    Message("user", "6 + 36?"),
    CALL,
    RESULT,
    message_with("assistant", "It is 42.", MessageFields(reasoning_content="Added.")),
    Message("user", "Sure?"),
    Message("assistant", "Yes."),
)
#: An answer that follows a call without its result.
ABRUPT = (CALL, Message("assistant", "It is 42."))
TURN = Turn((1.0, 3.0, 3.0, 1.0, 1.0))


@pytest.fixture
def chats(tmp_path: Path) -> Made:
    records = [Record(1, CHAT, (TURN, TURN)), Record(2, ABRUPT, (TURN,))]
    return make(Home(tmp_path / "home"), {"a.jsonl": [records]})


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("turns", [2, 1]),
        ("messages", [6, 2]),
        ("answer_chars", [4, 9]),
        ("group_size", [1, 1]),
    ],
)
def test_a_call_counts_as_a_message_and_not_as_a_turn(chats: Made, column: str, expected: list[int]) -> None:
    assert values(chats, column) == expected


def test_texts_are_those_of_the_turns(chats: Made) -> None:
    assert values_of_turns(chats, "answer_chars") == [[9, 4], [9]]
    # 6 + 36?, 42; and then also: It is 42., Sure?
    assert values_of_turns(chats, "prompt_chars") == [[9, 23], [0]]


def test_a_call_is_an_assistants_message(chats: Made) -> None:
    assert outcomes(chats, "alternates") == [True, False]
    assert outcomes(chats, "starts_with_assistant") == [False, True]


def test_a_records_answer_is_its_last_turn() -> None:
    messages = conversation_json((*CHAT, Message("user", "Again?"), CALL)).decode()
    assert texts_of("uctauauc", messages, "answer") == "Yes."
    assert texts_of("uctauauc", messages, "prompt") == "6 + 36?\n\n42\nIt is 42.\nSure?"
    assert texts_of("uctauauc", messages, "whole").endswith("Sure?\nYes.")
