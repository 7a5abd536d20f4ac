"""What a person maps, and what a row of no format is reported with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from converting import converted_file
from rows import chat, readings, rest, said, turns

from assay.core.errors import UserMistake
from assay.read.formats import parse_names


def test_a_field_is_read_under_the_name_that_it_is_mapped_to() -> None:
    names = parse_names(["problem=prompt", "final=response"], [])
    (reading,) = readings({"problem": "q", "final": "a", "id": 1}, names)
    assert (said(reading), rest(reading)) == (turns("q", "a"), {"id": 1})


def test_a_field_whose_name_another_one_takes_is_carried_along() -> None:
    (reading,) = readings(
        {"problem": "q", "prompt": "p", "response": "a"}, parse_names(["problem=prompt"], [])
    )
    assert (said(reading), rest(reading)) == (turns("q", "a"), {"prompt": "p"})


def test_a_mapped_field_that_is_not_used_keeps_its_name() -> None:
    row = {"Note": "n", "ground": "c", "messages": chat("q", "a")}
    (reading,) = readings(row, parse_names(["ground=context"], []))
    assert rest(reading) == {"Note": "n", "ground": "c"}


def test_fields_of_messages_are_mapped_too() -> None:
    talk = [{"who": "customer", "says": "q"}, {"who": "Agent", "says": "a"}]
    names = parse_names(["who=role", "says=content", "talk=messages"], ["customer=user", "AGENT=assistant"])
    (reading,) = readings({"talk": talk}, names)
    assert said(reading) == turns("q", "a")


def test_a_speaker_is_read_in_the_role_that_it_is_mapped_to(tmp_path: Path) -> None:
    talk = [{"from": "Customer", "value": "q"}, {"from": "laguna_s", "value": "a"}]
    data = json.dumps({"conversations": talk}).encode()
    (unknown,) = converted_file(tmp_path, data, name="a.jsonl").records
    assert unknown["reason"] == (
        "unknown_speaker: message 1 is by 'Customer'; give it a role, such as --map-role 'Customer=user'"
    )
    data_of_one = json.dumps({"conversations": [{"from": "human", "value": "q"}, talk[1]]}).encode()
    (answering,) = converted_file(tmp_path, data_of_one, name="b.jsonl").records
    assert answering["reason"].endswith("such as --map-role 'laguna_s=assistant'")
    names = parse_names([], ["customer=user", "laguna_s=assistant"])
    (known,) = converted_file(tmp_path, data, name="a.jsonl", mapped=names).records
    assert (known["outcome"], known["roles"]) == ("ok", "ua")


def test_a_speaker_that_is_mapped_says_who_asks_in_an_exchange_too() -> None:
    row = {"messages": [{"input": "a", "output": "q"}]}
    (as_known,) = readings(row)
    (as_mapped,) = readings(row, parse_names([], ["input=assistant", "output=user"]))
    assert said(as_known) == [("user", "a"), ("assistant", "q")]
    assert said(as_mapped) == [("assistant", "a"), ("user", "q")]


@pytest.mark.parametrize(
    ("fields", "speakers", "words"),
    [
        (["problem"], [], "--map 'problem': write NAME=KNOWN_NAME, such as 'problem=prompt'"),
        (["=prompt"], [], "--map '=prompt': write"),
        (["a=promt"], [], "--map 'a=promt': nothing is read from 'promt'; did you mean 'prompt'?"),
        (["a=prompt", "b=prompt"], [], "--map: 'a' and 'b' are mapped to 'prompt'"),
        (["a=prompt", "a=response"], [], "--map: 'a' is mapped to 'prompt' and to 'response'"),
        (
            [],
            ["a=asistant"],
            "--map-role 'a=asistant': there is no role 'asistant'; did you mean 'assistant'?",
        ),
    ],
)
def test_a_mapping_that_means_nothing_is_a_mistake(
    fields: list[str], speakers: list[str], words: str
) -> None:
    with pytest.raises(UserMistake) as caught:
        parse_names(fields, speakers)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "q", "final": "a", "id": 1},
        {"id": 1, "source": "web", "task": "q", "solution": "a"},
        {"question": "q", "reply": "a"},
        {"dialog": chat("q", "a"), "id": "x"},
    ],
)
def test_the_mapping_that_a_reason_names_makes_the_row_readable(tmp_path: Path, row: dict[str, Any]) -> None:
    (record,) = converted_file(tmp_path, json.dumps(row).encode()).records
    reason = record["reason"]
    assert reason.startswith("unknown_schema: ")
    assert all(repr(name) in reason for name in row)
    given = [word.strip("'") for word in reason.partition("; to read it, try ")[2].split("--map ")[1:]]
    (reading,) = readings(row, parse_names([word.strip().strip("'") for word in given], []))
    assert said(reading)[-2:] == turns("q", "a")


def missing(field: str, format: str) -> str:
    return f"{field!r} is missing for the nearest format, {format}"


def unlike(fields: str, format: str) -> str:
    return f"it has the fields of the nearest format, {format} ({fields}), but they hold something else"


NEAR_MISSES: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "q", "respnse": "a"}, missing("response", "instruction"), "respnse=response"),
    ({"problem": "q", "response": "a"}, missing("instruction", "instruction"), "problem=prompt"),
    ({"prompt": "q", "chosen": "a", "rejectd": "b"}, missing("rejected", "preference"), "rejectd=rejected"),
    ({"prompt": "q", "rejected": "b", "other": "x"}, missing("chosen", "preference"), ""),
    ({"prompt": "q", "chosen": "a", "other": "x"}, missing("rejected", "preference"), ""),
    ({"question": "q", "wrong": "b", "right": "a"}, missing("response", "instruction"), "right=response"),
    ({"prompt": "q", "data_source": "gsm8k", "ability": "math"}, missing("response", "instruction"), ""),
    ({"text": "no markers"}, unlike("'text'", "nemo_texts"), ""),
    ({"prompt": "q", "answers": "a"}, unlike("'answers', 'prompt'", "responses"), "answers=response"),
    ({"message_id": "1", "text": "x", "role": "prompter"}, missing("parent_id", "oasst_messages"), ""),
    ({"id": 1, "lang": "en"}, "it has no field of any format", ""),
    ({}, "it has no field of any format", ""),
]


@pytest.mark.parametrize(("row", "lack", "mapping"), NEAR_MISSES, ids=lambda value: str(value)[:40])
def test_a_reason_names_what_the_row_lacks_and_no_mapping_that_misleads(
    tmp_path: Path, row: dict[str, Any], lack: str, mapping: str
) -> None:
    # The reason does not depend on the other rows of the file.
    for before in ({"messages": chat("q", "a")}, {"instruction": "q", "output": "a"}):
        lines = b"\n".join(json.dumps(one).encode() for one in (before, row))
        _, record = converted_file(tmp_path, lines, name=f"{len(before)}.jsonl").records
        assert record["reason"].startswith(f"unknown_schema: {lack}; the row has ")
        assert record["reason"].partition("; to read it, try ")[2] == (mapping and f"--map {mapping!r}")


def test_a_value_of_the_wrong_kind_is_the_reason_whatever_the_other_rows_are(tmp_path: Path) -> None:
    for before in ({"messages": chat("q", "a")}, {"instruction": "q", "output": "a"}):
        lines = b"\n".join(json.dumps(one).encode() for one in (before, {"messages": "hello"}))
        _, record = converted_file(tmp_path, lines, name=f"{len(before)}.jsonl").records
        assert record["reason"] == "wrong_type: in 'messages': Expected `array` of messages"


def test_a_named_format_is_the_nearest_one(tmp_path: Path) -> None:
    row = {"prompt": "q", "better": "a", "rejected": "b"}
    (record,) = converted_file(tmp_path, json.dumps(row).encode(), format="preference").records
    assert record["reason"].startswith(
        "unknown_schema: 'chosen' is missing for the nearest format, preference"
    )


def test_a_row_that_no_renaming_makes_readable_is_given_none(tmp_path: Path) -> None:
    (record,) = converted_file(tmp_path, b'{"name": 5, "size": 7}').records
    assert record["reason"].endswith("the row has 'name', 'size'")
