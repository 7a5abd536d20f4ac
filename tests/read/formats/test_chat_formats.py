"""Formats whose rows are one conversation: messages, ShareGPT, SteerLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from converting import converted_file, read_row, said
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.core import steerlm
from assay.core.schema import ROLES, Message
from assay.read.formats import Row, recognised_format, row_of
from assay.read.formats.names import KNOWN_NAMES, SPEAKERS
from assay.read.formats.reading import Unreadable
from assay.read.formats.sharegpt import SHAREGPT

PAIR = [("user", "q"), ("assistant", "a")]
MESSAGES = [{"role": role, "content": content} for role, content in PAIR]


def row(data: object) -> Row:
    found = row_of(json.dumps(data).encode())
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(ROLES),
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
        ),
        min_size=1,
    )
)
def test_any_messages_round_trip(
    tmp_path_factory: pytest.TempPathFactory, messages: list[tuple[str, str]]
) -> None:
    """Faults 33 and 36: whatever the order of roles and the characters."""
    wire = [{"role": role, "content": content} for role, content in messages]
    (record,) = read_row(tmp_path_factory.mktemp("any"), {"messages": wire})
    assert said(record) == messages
    has_turn = any(role == "assistant" for role, _ in messages)
    assert (record["outcome"], record["reason"]) == (
        ("ok", None) if has_turn else ("dropped", "no_assistant_turn")
    )


@pytest.mark.parametrize(
    "roles",
    [
        ["assistant", "user", "assistant"],
        ["user", "user", "assistant", "assistant"],
        ["user", "system", "assistant"],
        ["system", "system", "user", "assistant"],
    ],
)
def test_an_odd_order_of_roles_is_kept_as_given(tmp_path: Path, roles: list[str]) -> None:
    """Fault 33."""
    wire = [{"role": role, "content": f"{number}"} for number, role in enumerate(roles)]
    (record,) = read_row(tmp_path, {"messages": wire})
    assert said(record) == [(role, f"{number}") for number, role in enumerate(roles)]
    assert record["outcome"] == "ok"
    assert record["roles"] == "".join(role[0] for role in roles)


OTHER_CHAT = [{"role": role, "content": f"other {content}"} for role, content in PAIR]


@pytest.mark.parametrize(
    ("data", "format", "rest"),
    [
        ({"conversation": MESSAGES, "language": "en"}, "conversation", {"language": "en"}),
        ({"conversation": MESSAGES, "prompt": "another"}, "conversation", {"prompt": "another"}),
        ({"conversation": MESSAGES, "messages": None}, "conversation", {"messages": None}),
        ({"messages": MESSAGES, "conversation": OTHER_CHAT}, "messages", {"conversation": OTHER_CHAT}),
        (
            {"instruction": "q", "response": "a", "conversation": OTHER_CHAT},
            "instruction",
            {"conversation": OTHER_CHAT},
        ),
        (
            {"prompt": "q", "response": "a", "conversation": [{"input": "q", "output": "a"}]},
            "instruction",
            {"conversation": [{"input": "q", "output": "a"}]},
        ),
        (
            {"prompt": "q", "response": "a", "conversation": ["hi", "ho"]},
            "instruction",
            {"conversation": ["hi", "ho"]},
        ),
        ({"prompt": "q", "response": "a", "conversation": []}, "instruction", {"conversation": []}),
        (
            {"prompt": "q", "responses": ["a"], "conversation": OTHER_CHAT[:1]},
            "responses",
            {"conversation": OTHER_CHAT[:1]},
        ),
    ],
)
def test_a_conversation_is_read_where_the_row_has_no_answer_of_its_own(
    tmp_path: Path, data: dict[str, object], format: str, rest: dict[str, object]
) -> None:
    assert recognised_format(row(data)) == format
    (record,) = read_row(tmp_path, data)
    assert (record["outcome"], said(record)) == ("ok", PAIR)
    assert json.loads(record["rest"]) == rest


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        (["hi", "ho"], "wrong_type: in 'conversation'"),
        ([None], "wrong_type: in 'conversation'"),
        (
            [{"input": "q", "output": "a", "x": 1}],
            "missing_field: message 1 has neither 'role' nor 'from'",
        ),
    ],
)
def test_a_conversation_of_something_else_is_no_format_and_is_reported(
    tmp_path: Path, elements: list[object], reason: str
) -> None:
    assert recognised_format(row({"conversation": elements})) is None
    (record,) = read_row(tmp_path, {"conversation": elements})
    assert record["outcome"] == "quarantined"
    assert record["reason"].startswith(reason)


@pytest.mark.parametrize("field", ["messages", "conversation"])
def test_a_conversation_of_another_type_is_named(tmp_path: Path, field: str) -> None:
    whole, broken = {field: MESSAGES}, {field: "hello"}
    lines = "".join(json.dumps(row) + "\n" for row in (whole, broken))
    records = converted_file(tmp_path, lines.encode()).records
    assert [record["outcome"] for record in records] == ["ok", "quarantined"]
    assert records[1]["reason"].startswith(f"wrong_type: in '{field}'")


def test_text_parts_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Left "}, {"type": "text", "text": "then right."}]
    (record,) = read_row(
        tmp_path, {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": parts}]}
    )
    assert said(record) == [("user", "Left then right."), ("assistant", "Left then right.")]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "assistant", "content": ""}, "empty_content: message 3 (assistant)"),
        ({"role": "user", "content": " \n\u3000"}, "empty_content: message 3 (user)"),
        ({"role": "tool", "content": None}, "empty_content: message 3 (tool) is null"),
        ({"role": "user"}, "missing_field: message 3 (user) has neither 'content' nor 'value'"),
        ({"content": "x"}, "missing_field: message 3 has neither 'role' nor 'from'"),
        (
            {"role": "narrator", "content": "x"},
            "unknown_speaker: message 3 is by 'narrator'; give it a role, such as --map-role 'narrator=user'",
        ),
        (
            {"role": "assistant", "content": "x", "tool_calls": [{"id": 1}]},
            "tool_calls: message 3 (assistant) holds calls that cannot be read: a call names no function",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
            "not_text: message 3 (user) has a part of type 'image_url'",
        ),
        ({"role": "user", "content": []}, "empty_content: message 3 (user)"),
    ],
)
def test_a_message_that_is_no_text_quarantines_its_record(
    tmp_path: Path, message: dict[str, object], reason: str
) -> None:
    """Fault 34."""
    (record,) = read_row(tmp_path, {"messages": [*MESSAGES, message, *MESSAGES]})
    assert (record["outcome"], record["reason"], record["messages"]) == ("quarantined", reason, None)


def test_no_calls_are_no_reason(tmp_path: Path) -> None:
    message: dict[str, object] = {
        "role": "assistant",
        "content": "a",
        "tool_calls": [],
        "function_call": None,
    }
    (record,) = read_row(tmp_path, {"messages": [MESSAGES[0], message]})
    assert said(record) == PAIR


@pytest.mark.parametrize("value", [3, "text", {"a": 1}, [1], [{"role": 1, "content": "x"}], None])
def test_messages_of_another_type_are_quarantined(tmp_path: Path, value: object) -> None:
    data = json.dumps({"messages": value}).encode()
    (record,) = converted_file(tmp_path, data, format="messages").records
    assert record["reason"].startswith("wrong_type: in 'messages': Expected ")


@pytest.mark.parametrize("speaker", [*SPEAKERS, *(name.upper() for name in SPEAKERS), " Human "])
def test_every_known_speaker_is_understood_in_any_case(speaker: str) -> None:
    assert SHAREGPT.read
    (reading,) = SHAREGPT.read(row({"conversations": [{"from": speaker, "value": "x"}]}), KNOWN_NAMES)
    assert reading.messages[0].role == SPEAKERS[speaker.strip().lower()]


@pytest.mark.parametrize(
    ("speaker", "reason"),
    [("narrator", "unknown_speaker: message 1 is by 'narrator'"), ("function_call", "tool_calls: message 1")],
)
def test_an_unknown_speaker_is_named(speaker: str, reason: str) -> None:
    assert SHAREGPT.read
    with pytest.raises(Unreadable, match=reason):
        SHAREGPT.read(row({"conversations": [{"from": speaker, "value": "x"}]}), KNOWN_NAMES)


def test_sharegpt_may_have_role_and_content(tmp_path: Path) -> None:
    (record,) = read_row(tmp_path, {"id": "x", "conversations": MESSAGES})
    assert (said(record), record["rest"]) == (PAIR, '{"id":"x"}')


@pytest.mark.parametrize("system", ["", " ", None])
def test_a_blank_system_field_is_no_message(tmp_path: Path, system: str | None) -> None:
    (record,) = read_row(tmp_path, {"conversations": MESSAGES, "system": system})
    assert said(record) == PAIR


def test_a_system_field_goes_in_front(tmp_path: Path) -> None:
    (record,) = read_row(tmp_path, {"conversations": MESSAGES, "system": "Be brief."})
    assert said(record) == [("system", "Be brief."), *PAIR]
    assert record["rest"] is None


def steerlm_row(**fields: object) -> dict[str, object]:
    turns = [
        {"value": "q", "from": "User", "label": None},
        {"value": "a", "from": "Assistant", "label": "quality:4,humor:0"},
        {"value": "r", "from": "User", "label": None},
        {"value": "b", "from": "Assistant"},
        {"value": "c", "from": "Assistant", "label": ""},
    ]
    system = {"system": steerlm.NEMO_SYSTEM, "mask": "User", "type": "VALUE_TO_TEXT"}
    return {"conversations": turns, **system, **fields}


def test_a_steerlm_row_comes_back_as_it_was(tmp_path: Path) -> None:
    (record,) = read_row(tmp_path, steerlm_row())
    assert record["labels"] == [None, "quality:4,humor:0", None, None, ""]
    assert record["rest"] is None
    messages = [Message(**message) for message in record["messages"]]
    assert steerlm.to_row(messages, record["labels"]) == steerlm_row()


def test_nemos_sentence_is_no_message_and_another_one_is(tmp_path: Path) -> None:
    (plain,) = read_row(tmp_path, steerlm_row())
    (own,) = read_row(tmp_path, steerlm_row(system="Be brief."), name="b.jsonl")
    assert said(plain)[0] == ("user", "q")
    assert said(own)[0] == ("system", "Be brief.")
    assert own["labels"] == [None, *plain["labels"]]


def test_the_mask_says_who_the_user_is(tmp_path: Path) -> None:
    turns = [{"value": "q", "from": "Pat"}, {"value": "a", "from": "Assistant"}]
    (record,) = read_row(tmp_path, {"conversations": turns, "mask": "Pat", "type": "TEXT_TO_VALUE"})
    assert said(record) == PAIR
    assert record["rest"] == '{"type":"TEXT_TO_VALUE"}'
    assert record["labels"] is None
