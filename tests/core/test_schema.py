"""What a message holds, which messages are turns, and what their keys are made of."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.reasoning import NothingElse, turns_with_reasoning, without_reasoning
from assay.core.schema import (
    ROLES,
    Conversation,
    Message,
    MessageFields,
    message_with,
    roles_of,
    turn_keys,
    turn_positions,
)
from assay.storage.conversations import conversation_json, conversation_of

CALLS = '[{"type":"function","function":{"name":"f","arguments":{}}}]'
TEXTS = st.one_of(st.none(), st.text(max_size=5))
FIELDS = st.builds(
    MessageFields,
    reasoning_content=TEXTS,
    thinking=TEXTS,
    tool_calls=st.sampled_from([None, CALLS]),
    tool_call_id=TEXTS,
    name=TEXTS,
    carried=st.sampled_from([None, '{"weight":0.10,"a":{"b":[1e3]}}', '{"name":[1]}']),
)
CONTENTS = st.sampled_from(
    ["", "a", "é\n", "<think>x</think> y", "<think></think>", " ", "<think>x</think><think>y</think>z"]
)
MESSAGES = st.builds(message_with, st.sampled_from(ROLES), CONTENTS, FIELDS)


def test_a_message_of_role_and_content_alone_is_as_small_as_before() -> None:
    assert sys.getsizeof(Message("user", "Hi")) == 48
    assert message_with("user", "Hi", MessageFields()) == Message("user", "Hi")
    assert type(message_with("user", "Hi", MessageFields())) is Message
    assert conversation_json([Message("user", "Hi")]) == b'[{"role":"user","content":"Hi"}]'


@given(messages=st.lists(MESSAGES, max_size=4))
def test_what_is_written_is_read_again(messages: list[Message]) -> None:
    kept = [one for one in messages if one.fields.name is None or "[1]" not in (one.fields.carried or "")]
    assert conversation_of(conversation_json(kept)) == tuple(kept)


@given(messages=st.lists(MESSAGES, max_size=6))
def test_turns_positions_keys_and_roles_agree(messages: list[Message]) -> None:
    positions = turn_positions(messages)
    roles = roles_of(messages)
    assert [place for place, role in enumerate(roles) if role == "a"] == positions
    assert len(turn_keys(messages)) == len(positions)
    for place, key in zip(positions, turn_keys(messages, CALLS), strict=True):
        assert turn_keys(messages[: place + 1], CALLS)[-1] == key


@given(messages=st.lists(MESSAGES, max_size=6))
def test_hidden_reasoning_moves_no_turn_and_leaves_the_others_as_they_are(messages: list[Message]) -> None:
    try:
        shown = without_reasoning(messages)
    except NothingElse:
        return
    assert turn_positions(shown) == turn_positions(messages)
    assert turns_with_reasoning(shown) == 0
    assert without_reasoning(shown) == shown
    changed = [before is not after for before, after in zip(messages, shown, strict=True)]
    assert not any(
        moved for moved, message in zip(changed, messages, strict=True) if message.role != "assistant"
    )


def answered(content: str, **fields: str) -> Message:
    return message_with("assistant", content, MessageFields(**fields))  # type: ignore[arg-type]


def said(answer: Message) -> Conversation:
    return (Message("user", "<think>Why?</think> Hm?"), answer)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (answered("<think>\nHm.\n</think>\n\nYes."), answered("Yes.")),
        (answered("\n <think>a</think>Yes. <think>b</think>"), answered("Yes. <think>b</think>")),
        (answered("<think>a</think>\n<think>b</think>\nYes."), answered("Yes.")),
        (answered("Yes. <think>b</think>"), None),
        (answered("<thinking>b</thinking> Yes."), None),
        (answered("Yes.", reasoning_content="Hm."), answered("Yes.")),
        (answered("Yes.", thinking="Hm."), answered("Yes.")),
        (answered("Yes.", reasoning="Hm.", carried='{"w":1}'), answered("Yes.", carried='{"w":1}')),
        (answered("<think>I call.</think>", tool_calls=CALLS), answered("", tool_calls=CALLS)),
        (answered("Yes.", name="bo"), None),
    ],
)
def test_reasoning_is_a_field_or_stands_before_the_answer(answer: Message, shown: Message | None) -> None:
    conversation = said(answer)
    assert without_reasoning(conversation) == (conversation[0], shown or answer)
    assert turns_with_reasoning(conversation) == (shown is not None and roles_of([answer]) == "a")
    assert (without_reasoning(conversation)[1] is answer) is (shown is None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<think>Hm.</think>\n", "empty_content: message 2 (assistant) holds nothing but reasoning"),
        ("<think>Hm.</think><think>Hm. Yes.", "unclosed_reasoning: message 2 (assistant)"),
        ("<think>Hm.", "unclosed_reasoning: message 2 (assistant) begins with <think> and never ends it"),
    ],
)
def test_a_turn_without_an_answer_has_a_reason(content: str, reason: str) -> None:
    with pytest.raises(NothingElse) as refused:
        without_reasoning(said(Message("assistant", content)))
    assert str(refused.value).startswith(reason)
