"""Rows that a reader got wrong once: each is read whole, or refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from converting import Outcome, converted_file


def outcome_of(tmp_path: Path, *rows: dict[str, Any]) -> Outcome:
    return converted_file(tmp_path, b"\n".join(json.dumps(row).encode() for row in rows))


def conversations(outcome: Outcome) -> list[list[tuple[str, str]]]:
    return [
        [(message["role"], message["content"]) for message in record["messages"]]
        for record in outcome.records
        if record["outcome"] == "ok"
    ]


def reasons(outcome: Outcome) -> list[str]:
    return [str(record["reason"]).split(":")[0] for record in outcome.records]


ASKED = [{"role": "user", "content": "q"}]
TALK = [*ASKED, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": None},
        {"choices": "x"},
        {"output": None},
        {"output": "text"},
        {"output": [1]},
        {"output": [{"content": 3}]},
    ],
)
def test_a_reply_of_the_batch_api_without_answers_is_refused(tmp_path: Path, reply: dict[str, Any]) -> None:
    row = {"custom_id": "1", "body": {"messages": ASKED}, "response": {"body": reply}}
    (reason,) = reasons(outcome_of(tmp_path, row))
    assert reason in ("no_answer", "wrong_type")


def test_every_row_of_a_file_is_read_alike(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, *[{"messages": TALK, "helpfulness": 4}] * 3)
    first, *others = [(record["labels"], record["rest"]) for record in outcome.records]
    assert first[0] == [None, "helpfulness:4"]
    assert others == [first, first]


def test_what_is_too_deep_to_be_put_on_one_line_is_refused(tmp_path: Path) -> None:
    deep = "[" * 990 + "1" + "]" * 990
    data = f'[{{"prompt": "q",\n"response": "a",\n"extra": {deep}}}]'
    (reason,) = reasons(converted_file(tmp_path, data.encode(), name="rows.json"))
    assert reason == "too_deep"


def test_a_context_that_is_no_conversation_is_not_left_out_of_what_is_rated(tmp_path: Path) -> None:
    row = {"question": "q", "context": [{"title": "t", "text": "x"}], "answer": "a"}
    outcome = outcome_of(tmp_path, row)
    assert not conversations(outcome)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "answers": ["x", "y"], "response": "a"},
        {"question": "q", "choices": ["A", "a", "C"], "answer": "a"},
    ],
)
def test_references_and_options_are_not_rated_in_place_of_the_answer(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    assert conversations(outcome_of(tmp_path, row)) == [[("user", "q"), ("assistant", "a")]]


@pytest.mark.parametrize(
    "beside",
    [
        {"answers": "foo"},
        {"answers": ["x", "y"]},
        {"completions": "foo"},
        {"choices": {"text": ["x"]}},
        {"completion": 5},
    ],
)
@pytest.mark.parametrize("asked", [{"messages": ASKED}, {"prompt": "q"}])
def test_an_answer_is_found_beside_fields_that_hold_none(
    tmp_path: Path, asked: dict[str, Any], beside: dict[str, Any]
) -> None:
    row = {**asked, **beside, "response": "a", "id": 1}
    outcome = outcome_of(tmp_path, row)
    assert conversations(outcome) == [[("user", "q"), ("assistant", "a")]]
    assert json.loads(outcome.records[0]["rest"]) == {**beside, "id": 1}


def test_a_question_without_answers_is_dropped_and_carried_along(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, {"instruction": "q", "responses": [], "id": 1})
    (record,) = outcome.records
    assert (record["outcome"], record["reason"]) == ("dropped", "no_messages")
    assert json.loads(record["rest"]) == {"instruction": "q", "id": 1}


def test_a_null_makes_way_for_the_same_name_in_another_case(tmp_path: Path) -> None:
    outcome = outcome_of(
        tmp_path, {"prompt": None, "Prompt": "q", "response": "a"}, {"prompt": None, "Prompt": None}
    )
    assert conversations(outcome) == [[("user", "q"), ("assistant", "a")]]
    assert json.loads(outcome.records[0]["rest"]) == {"prompt": None}
    assert reasons(outcome)[1] == "unknown_schema"


def test_a_mask_that_names_no_speaker_is_carried_along(tmp_path: Path) -> None:
    talk = [{"from": "User", "value": "q"}, {"from": "Assistant", "value": "a"}]
    outcome = outcome_of(tmp_path, *[{"conversations": talk, "mask": name} for name in ("User", "Narrator")])
    assert [record["rest"] for record in outcome.records] == [None, '{"mask":"Narrator"}']


def test_all_numbered_answers_are_rated(tmp_path: Path) -> None:
    row = {"prompt": "q", **{f"response_{number}": f"a{number}" for number in (1, 2, 3, 4)}}
    found = conversations(outcome_of(tmp_path, row))
    assert [one[-1] for one in found] == [("assistant", f"a{number}") for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("behind", ["", "\n", "<|end_of_text|>", "\n<|endoftext|>\n"])
def test_no_end_of_a_message_or_a_text_is_part_of_an_answer(tmp_path: Path, behind: str) -> None:
    header = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
    text = header.format("user", "q") + header.format("assistant", "a") + behind
    assert conversations(outcome_of(tmp_path, {"text": text})) == [[("user", "q"), ("assistant", "a")]]
    asked = header.format("user", "q") + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    answered = {"prompt": asked, "response": f"a<|eot_id|>{behind}"}
    assert conversations(outcome_of(tmp_path, answered)) == [[("user", "q"), ("assistant", "a")]]


def test_text_behind_the_end_of_a_message_is_not_lost(tmp_path: Path) -> None:
    text = "<|im_start|>user\nq<|im_end|>\nmore\n<|im_start|>assistant\na<|im_end|>"
    assert reasons(outcome_of(tmp_path, {"text": text})) == ["text_behind_end"]


def test_a_marker_without_a_speaker_alone_is_refused(tmp_path: Path) -> None:
    text = "<extra_id_0>System <b>\nS\n<extra_id_1>User\nq\n<extra_id_1>Assistant\na\n"
    assert reasons(outcome_of(tmp_path, {"text": text})) == ["unknown_speaker"]


def test_a_prompt_of_nemo_is_kept_only_before_one_answer(tmp_path: Path) -> None:
    prompt = "q\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nr"
    one: dict[str, Any] = {"prompt": prompt, "response": "a"}
    several: dict[str, Any] = {"prompt": prompt, "response": [TALK[1], *TALK]}
    outcome = outcome_of(tmp_path, one, several)
    assert [record["nemo_prompt"] for record in outcome.records] == [prompt, None]


@pytest.mark.parametrize("picture", [[""], [None, None], {"bytes": None, "path": None}, [{"bytes": None}]])
def test_an_empty_picture_is_none(tmp_path: Path, picture: object) -> None:
    assert reasons(outcome_of(tmp_path, {"prompt": "q", "response": "a", "images": picture})) == ["None"]


@pytest.mark.parametrize("picture", ["p.png", [None, {"path": "p.png"}], [0]])
def test_a_picture_is_no_text(tmp_path: Path, picture: object) -> None:
    assert reasons(outcome_of(tmp_path, {"prompt": "q", "response": "a", "images": picture})) == ["not_text"]
