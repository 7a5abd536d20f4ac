"""What stands beside the messages: a system text, a history, null columns, pictures, NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from converting import converted_file
from rows import chat, format_name, readings, rest, said, turns

Q_AND_A = chat("q", "a")

WHOLE: dict[str, dict[str, Any]] = {
    "messages": {"messages": Q_AND_A},
    "conversation": {"conversation": Q_AND_A},
    "conversations": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "instruction": {"instruction": "q", "output": "a"},
    "query": {"query": "q", "response": "a"},
    "responses": {"prompt": "q", "responses": ["a"]},
    "preference": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "whole sides": {"chosen": Q_AND_A, "rejected": chat("q", "b")},
    "helpsteer": {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": 1},
    "arena": {"conversation_a": Q_AND_A, "conversation_b": chat("q", "b"), "winner": "model_a"},
    "stepwise": {"prompt": "q", "completions": ["a"], "labels": [True]},
}


@pytest.mark.parametrize("row", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize(
    "beside",
    [
        {"system": "s"},
        {"system_prompt": "s"},
        {"system_message": "s"},
        {"System": "s"},
        {"systemPrompt": "s"},
        {"custom_instructions": "s"},
        {"chat_template_kwargs": {"custom_instructions": "s", "enable_thinking": False}},
        {"system": [{"type": "text", "text": "s"}]},
        {"system": ["s"]},
        {"system": {"role": "system", "content": "s"}},
        {"system": [{"role": "system", "content": "s"}]},
        {"system_instruction": {"parts": [{"text": "s"}]}},
        {"system": "s", "system_prompt": "s"},
        {"system": "s", "system_prompt": " "},
        {"system": None, "system_prompt": "s"},
    ],
    ids=json.dumps,
)
def test_a_system_text_is_the_first_message_in_every_format(
    row: dict[str, Any], beside: dict[str, Any]
) -> None:
    for reading in readings({**row, **beside}):
        assert reading.problem is None
        assert said(reading)[:2] == [("system", "s"), ("user", "q")]
        assert [role for role, _ in said(reading)].count("system") == 1


@pytest.mark.parametrize("blank", ["", " \n", None, [], [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("row", WHOLE.values(), ids=WHOLE)
def test_a_blank_system_text_is_none(row: dict[str, Any], blank: object) -> None:
    for reading in readings({**row, "system": blank}):
        assert said(reading)[0] == ("user", "q")


def test_the_same_system_text_twice_is_once_and_another_is_kept() -> None:
    (same,) = readings({"system": "s", "messages": chat("q", "a", system="s")})
    (other,) = readings({"system": "s", "messages": chat("q", "a", system="t")})
    assert said(same) == turns("q", "a", system="s")
    assert said(other) == [("system", "s"), *turns("q", "a", system="t")]


def test_what_is_no_text_is_no_system_text() -> None:
    (reading,) = readings({"system": {"gpus": 8}, "messages": Q_AND_A})
    assert said(reading) == turns("q", "a")
    assert rest(reading) == {"system": {"gpus": 8}}


@pytest.mark.parametrize("content", ["", " ", None, [], [{"type": "text", "text": " "}]])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_system_message_without_text_is_none_wherever_it_stands(
    tmp_path: Path, content: object, place: int
) -> None:
    messages: list[dict[str, Any]] = [*Q_AND_A, *chat("r", "b")]
    messages.insert(place, {"role": "system", "content": content})
    rows = [{"messages": messages}, {"conversations": [{**one, "label": None} for one in messages]}]
    records = converted_file(tmp_path, b"\n".join(json.dumps(row).encode() for row in rows)).records
    for record in records:
        assert (record["outcome"], record["roles"]) == ("ok", "uaua")


def test_labels_stay_with_their_turns_where_a_blank_system_message_goes(tmp_path: Path) -> None:
    conversation = [
        {"from": "User", "value": "q", "label": None},
        {"from": "System", "value": ""},
        {"from": "Assistant", "value": "a", "label": "quality:3"},
    ]
    outcome = converted_file(tmp_path, json.dumps({"conversations": conversation}).encode())
    assert outcome.records[0]["labels"] == [None, "quality:3"]
    assert outcome.turns[0]["given"] == '{"given.quality":3.0}'


HISTORIES: list[object] = [
    [["x", "y"]],
    chat("x", "y"),
    ["x", "y"],
    [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}],
    [{"user": "x", "assistant": "y"}],
    "\n\nHuman: x\n\nAssistant: y",
]


@pytest.mark.parametrize("history", HISTORIES, ids=json.dumps)
@pytest.mark.parametrize(
    "row",
    [WHOLE[name] for name in ("query", "instruction", "responses", "preference", "helpsteer", "stepwise")],
)
def test_a_history_goes_before_any_prompt(row: dict[str, Any], history: object) -> None:
    for name in ("history", "chat_history"):
        for reading in readings({**row, name: history, "system": "s"}):
            assert said(reading)[:4] == [("system", "s"), *turns("x", "y", "q")]
            assert name not in rest(reading)


@pytest.mark.parametrize("nothing", [None, [], "", " "])
def test_an_empty_history_is_none(nothing: object) -> None:
    (reading,) = readings({"query": "q", "response": "a", "history": nothing})
    assert (said(reading), rest(reading)) == (turns("q", "a"), {})


def test_a_history_that_the_messages_begin_with_is_not_repeated() -> None:
    (reading,) = readings({"history": chat("x", "y"), "messages": chat("x", "y", "q", "a")})
    assert said(reading) == turns("x", "y", "q", "a")


def test_a_history_whose_speakers_nobody_knows_quarantines_the_answer() -> None:
    (reading,) = readings({"prompt": "q", "response": "a", "history": "They spoke of tides."})
    assert reading.problem is not None
    assert reading.problem.startswith("wrong_type: 'history' is a text")


@pytest.mark.parametrize(
    "history", ["They spoke of tides.", ["x", "y", "z"], [["x", 5]], [{"role": "narrator", "content": "x"}]]
)
@pytest.mark.parametrize("row", WHOLE.values(), ids=WHOLE)
def test_what_was_said_before_is_placed_or_the_record_is_refused(
    row: dict[str, Any], history: object
) -> None:
    for reading in readings({**row, "history": history}):
        assert reading.problem is not None
        assert reading.problem.startswith(("wrong_type: ", "unknown_speaker: "))


@pytest.mark.parametrize("history", [5, {"made": "today"}, [1, 2], [[1, 0.5]], [{"event": "edited"}]])
def test_a_history_of_what_nobody_says_is_carried_along_beside_messages(history: object) -> None:
    (reading,) = readings({"messages": Q_AND_A, "history": history})
    assert (said(reading), rest(reading)) == (turns("q", "a"), {"history": history})


def test_earlier_messages_in_a_context_go_before_the_prompt() -> None:
    row = {"prompt": "q", "context": chat("x", "y"), "chosen": "a", "rejected": "b"}
    assert [said(reading) for reading in readings(row)] == [
        turns("x", "y", "q", "a"),
        turns("x", "y", "q", "b"),
    ]


@pytest.mark.parametrize("field", ["trajectory", "context_messages", "context", "conversation", "history"])
def test_a_prompt_under_another_name_is_found(field: str) -> None:
    sides = {"chosen": chat("q", "a")[1:], "rejected": {"role": "assistant", "content": "b"}}
    assert [said(reading) for reading in readings({field: chat("q"), **sides})] == [
        turns("q", "a"),
        turns("q", "b"),
    ]


@pytest.mark.parametrize(
    "sides",
    [
        {"chosen": chat("q", "a")[1:], "rejected": chat("q", "b")[1:]},
        {"chosen": {"role": "assistant", "content": "a"}, "rejected": {"role": "assistant", "content": "b"}},
        {"chosen": [{"role": "system", "content": "s"}, chat("q", "a")[1]], "rejected": chat("q", "b")[1:]},
    ],
)
def test_an_answer_is_never_rated_without_its_question(sides: dict[str, Any]) -> None:
    for reading in readings({"unheard_of": chat("q"), **sides}):
        assert reading.problem is not None
        assert reading.problem.startswith("missing_prompt: ")


def test_null_columns_mean_not_this_one_and_a_file_may_hold_several_formats(tmp_path: Path) -> None:
    empty = dict.fromkeys(("messages", "chosen", "rejected", "prompt", "response", "conversations"))
    rows: list[dict[str, Any]] = [
        {"messages": Q_AND_A},
        {"chosen": Q_AND_A, "rejected": chat("q", "b")},
        {"prompt": "q", "response": "a"},
        {"conversations": [{"from": "human", "value": "q", "role": None, "content": None, "label": None}]},
    ]
    lines = b"\n".join(json.dumps({**empty, **row}).encode() for row in rows)
    records = converted_file(tmp_path, lines).records
    assert [(record["line"], record["part"], record["roles"]) for record in records] == [
        (1, 0, "ua"),
        (2, 0, "ua"),
        (2, 1, "ua"),
        (3, 0, "ua"),
        (4, 0, "u"),
    ]


def test_a_row_is_read_alike_whatever_the_other_rows_are(tmp_path: Path) -> None:
    rows = [json.dumps(row).encode() for row in WHOLE.values()]
    mixed = converted_file(tmp_path, b"\n".join(rows), name="mixed.jsonl").records
    alone = [
        record
        for number, row in enumerate(rows)
        for record in converted_file(tmp_path, row, name=f"{number}.jsonl").records
    ]
    kept = ("messages", "labels", "rest", "outcome", "reason", "part")
    assert [[one[name] for name in kept] for one in mixed] == [[one[name] for name in kept] for one in alone]


@pytest.mark.parametrize("format", ["sharegpt", "steerlm"])
def test_a_named_format_is_the_format_of_every_row(tmp_path: Path, format: str) -> None:
    lines = b"\n".join(json.dumps(WHOLE[name]).encode() for name in ("conversations", "messages"))
    good, bad = converted_file(tmp_path, lines, format=format).records
    assert good["outcome"] == "ok"
    assert (
        bad["reason"] == f"mixed_formats: 'conversations' is missing: a row of messages in a file of {format}"
    )


@pytest.mark.parametrize("field", ["image", "images", "videos", "audio", "image_path"])
@pytest.mark.parametrize("value", ["quay.jpg", ["quay.jpg"], {"bytes": "0"}, [{"path": "quay.jpg"}]])
def test_a_row_with_a_picture_is_no_text(field: str, value: object) -> None:
    for row in WHOLE.values():
        assert [reading.problem for reading in readings({**row, field: value})] == [
            f"not_text: the row has something in {field!r}"
        ]


@pytest.mark.parametrize("value", [None, [], "", {}, [None]])
def test_an_empty_column_of_pictures_is_no_picture(value: object) -> None:
    (reading,) = readings({"messages": Q_AND_A, "images": value})
    assert said(reading) == turns("q", "a")


def test_numbers_that_json_lacks_cost_nothing_and_are_counted(tmp_path: Path) -> None:
    line = (
        b'{"messages": [{"role": "user", "content": "NaN, \\"Infinity\\""},'
        b' {"role": "assistant", "content": "a"}],'
        b' "score": NaN, "all": [1, -Infinity, {"x": Infinity}], "word": "NaN", "id": 7}'
    )
    outcome = converted_file(tmp_path, line)
    (record,) = outcome.records
    assert record["messages"][0]["content"] == 'NaN, "Infinity"'
    assert json.loads(record["rest"]) == {
        "score": None,
        "all": [1, None, {"x": None}],
        "word": "NaN",
        "id": 7,
    }
    assert outcome.converted.left_out == {"score": 1, "all": 1}


@pytest.mark.parametrize("line", [b'{"messages": NaN', b'{"a": NaNa}', b'{"a": N, "b": NaN}'])
def test_a_line_that_is_no_json_for_another_reason_is_none(tmp_path: Path, line: bytes) -> None:
    (record,) = converted_file(tmp_path, line).records
    assert record["reason"].startswith("not_json: ")


def test_messages_that_are_a_text_of_json_are_read() -> None:
    (reading,) = readings({"messages": json.dumps(Q_AND_A), "history": "[]"})
    assert said(reading) == turns("q", "a")


def test_names_of_fields_match_in_any_case() -> None:
    (reading,) = readings({"Prompt": "q", "RESPONSE": "a", "System-Prompt": "s", "Id": 1})
    assert (said(reading), rest(reading)) == (turns("q", "a", system="s"), {"Id": 1})
    assert format_name(
        {"Messages": [{"Role": "User", "Content": "q"}, {"Role": "Assistant", "Content": "a"}]}
    )
