"""Formats whose rows hold answers in fields: instruction, responses, preference, HelpSteer's pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from converting import converted_file, read_row, said

ASKED = ("user", "q")
PAIR = [ASKED, ("assistant", "a")]
MESSAGES = [{"role": role, "content": content} for role, content in PAIR]


@pytest.mark.parametrize(
    ("row", "messages", "rest"),
    [
        ({"instruction": "q", "input": "", "output": "a"}, PAIR, None),
        ({"instruction": "q", "input": "i", "output": "a"}, [("user", "q\n\ni"), PAIR[1]], None),
        (
            {"instruction": "q", "output": "a", "history": [["x", "y"]]},
            [("user", "x"), ("assistant", "y"), *PAIR],
            None,
        ),
        (
            {"instruction": "q", "context": "c", "response": "a", "category": "qa"},
            [("user", "q\n\nc"), PAIR[1]],
            {"category": "qa"},
        ),
        ({"prompt": "q", "completion": "a"}, PAIR, None),
        ({"question": "q", "answer": "a", "context": "c"}, [("user", "q\n\nc"), PAIR[1]], None),
        ({"query": "q", "response": "a", "context": ["c", "d"]}, [("user", "q\n\nc\n\nd"), PAIR[1]], None),
        ({"prompt": "q", "input": "i", "output": "a"}, [("user", "q\n\ni"), PAIR[1]], None),
        ({"input": "q", "output": "a", "context": "c"}, [("user", "q\n\nc"), PAIR[1]], None),
        ({"prompt": "c: q", "output": "a", "context": "c"}, [("user", "c: q"), PAIR[1]], {"context": "c"}),
        ({"prompt": "q", "output": "a", "context": None}, PAIR, None),
        ({"system_prompt": "s", "question": "q", "response": "a"}, [("system", "s"), *PAIR], None),
        ({"system": "", "prompt": "q", "response": "a"}, PAIR, None),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, PAIR, None),
        (
            {"instruction": "q", "generation": "a", "model_name": "m", "distilabel_metadata": {}},
            PAIR,
            {"model_name": "m", "distilabel_metadata": {}},
        ),
    ],
)
def test_question_and_answer_make_a_conversation(
    tmp_path: Path, row: dict[str, object], messages: list[tuple[str, str]], rest: object
) -> None:
    (record,) = read_row(tmp_path, row)
    assert (record["outcome"], said(record)) == ("ok", messages)
    assert (record["rest"] and json.loads(record["rest"])) == rest


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "q", "output": None}, "empty_content: 'output' is null"),
        ({"instruction": "q", "output": ""}, "empty_content: message 2 (assistant)"),
        ({"prompt": "", "response": "a"}, "empty_content: message 1 (user)"),
        (
            {"question": "q", "answer": "a", "context": {"title": "c"}},
            "wrong_type: in 'context': Expected `str | array | null`, got `object`",
        ),
    ],
)
def test_empty_answers_are_quarantined(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    (record,) = read_row(tmp_path, row)
    assert (record["outcome"], record["reason"]) == ("quarantined", reason)


def test_helpsteer_ratings_become_the_label_in_nemos_order(tmp_path: Path) -> None:
    # HelpSteer's own field order; by NeMo's rule the label is helpfulness first, verbosity last.
    row = {
        "prompt": "q",
        "response": "a",
        "verbosity": 1,
        "complexity": 2,
        "coherence": 4,
        "correctness": 3,
        "helpfulness": 0,
    }
    (record,) = read_row(tmp_path, row)
    assert record["labels"] == [None, "helpfulness:0,correctness:3,coherence:4,complexity:2,verbosity:1"]
    # The ratings are carried along too, to the digit.
    assert json.loads(record["rest"]) == {name: row[name] for name in list(row)[2:]}


def test_helpfulness_alone_is_a_label(tmp_path: Path) -> None:
    (record,) = read_row(tmp_path, {"prompt": "q", "response": "a", "helpfulness": 4})
    assert record["labels"] == [None, "helpfulness:4"]


def test_ratings_that_are_not_whole_are_rounded_in_the_label_and_carried_along(tmp_path: Path) -> None:
    ratings = {"helpfulness": 3.0, "correctness": 2.5, "coherence": 3.5, "quality": 0.73, "humor": None}
    outcome = converted_file(tmp_path, json.dumps({"prompt": "q", "response": "a", **ratings}).encode())
    (record,) = outcome.records
    assert record["labels"] == [None, "quality:1,helpfulness:3,correctness:2,coherence:4"]
    assert json.loads(record["rest"]) == ratings
    assert json.loads(outcome.turns[0]["given"]) == {
        f"given.{name}": value for name, value in ratings.items() if value is not None
    }


def test_ratings_of_another_kind_are_carried_along(tmp_path: Path) -> None:
    ratings = {"helpfulness": "good", "quality": [1], "verbosity": True}
    (record,) = read_row(tmp_path, {"prompt": "q", "response": "a", **ratings})
    assert record["labels"] is None
    assert json.loads(record["rest"]) == ratings


def test_helpsteer_pairs_give_two_rows_with_the_strength(tmp_path: Path) -> None:
    # Negative: the first is better, as NeMo-Aligner reads it; both rows carry the same label.
    row = {"split": "train", "prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": -2}
    first, second = read_row(tmp_path, row)
    assert [said(first)[1][1], said(second)[1][1]] == ["a", "b"]
    assert first["labels"] == second["labels"] == [None, "quality:-2"]
    assert [json.loads(each["rest"])["assay_side"] for each in (first, second)] == ["chosen", "rejected"]
    assert {json.loads(each["rest"])["preference_strength"] for each in (first, second)} == {-2}
    assert [(each["line"], each["part"]) for each in (first, second)] == [(1, 0), (1, 1)]
    tie, _ = read_row(tmp_path, {**row, "preference_strength": 0}, name="tie.jsonl")
    assert json.loads(tie["rest"]) == {"split": "train", "preference_strength": 0}


@pytest.mark.parametrize("field", ["responses", "completions", "generations", "outputs"])
def test_every_response_is_a_record(tmp_path: Path, field: str) -> None:
    records = read_row(tmp_path, {"prompt": "q", field: ["a", "b", "c"], "id": 7})
    assert [said(record) for record in records] == [[ASKED, ("assistant", text)] for text in "abc"]
    assert [record["part"] for record in records] == [0, 1, 2]
    assert {record["rest"] for record in records} == {'{"id":7}'}
    assert len({record["prompt_key"] for record in records}) == 1


def test_a_response_may_be_an_object_or_messages(tmp_path: Path) -> None:
    answers = [
        {"role": "assistant", "content": "a"},
        {"response": "a", "model": "m", "rating": 12345678901234567890123},
        [{"role": "assistant", "content": "a"}],
        {"rank": 0, "completion": [{"role": "assistant", "content": "a"}]},
    ]
    records = read_row(tmp_path, {"instruction": "q", "completions": answers})
    assert [said(record) for record in records] == [PAIR] * 4
    assert [record["rest"] for record in records] == [
        None,
        '{"assay_response":{"model":"m","rating":12345678901234567890123}}',
        None,
        '{"assay_response":{"rank":0}}',
    ]


def test_a_bad_response_costs_only_itself(tmp_path: Path) -> None:
    records = read_row(tmp_path, {"prompt": "q", "responses": ["a", "", None, 5, {"x": 1}]})
    assert [record["reason"] for record in records] == [
        None,
        "empty_content: message 2 (assistant)",
        "empty_content: 'responses' is null",
        "wrong_type: in 'responses': Expected `str | object | array | null`, got `int`",
        "missing_field: an answer has none of response, completion, content, text, output, generation, "
        "answer, message, generated_text",
    ]


def test_a_prompt_without_responses_is_dropped(tmp_path: Path) -> None:
    (record,) = read_row(tmp_path, {"prompt": "q", "responses": []})
    assert (record["outcome"], record["reason"]) == ("dropped", "no_messages")


def sides(records: list[dict[str, object]]) -> list[tuple[str, str]]:
    return [(json.loads(str(record["rest"]))["assay_side"], said(record)[-1][1]) for record in records]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"},
        {"chosen": MESSAGES, "rejected": [MESSAGES[0], {"role": "assistant", "content": "b"}]},
        {"prompt": MESSAGES[:1], "chosen": MESSAGES[1:], "rejected": [{"role": "assistant", "content": "b"}]},
        {"messages": MESSAGES[:1], "chosen": MESSAGES[1], "rejected": {"role": "assistant", "content": "b"}},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
    ],
)
def test_both_sides_are_records_that_know_which_they_are(tmp_path: Path, row: dict[str, object]) -> None:
    records = read_row(tmp_path, row)
    assert sides(records) == [("chosen", "a"), ("rejected", "b")]
    assert {said(record)[0] for record in records} == {ASKED}
    assert {len(record["messages"]) for record in records} == {2}
    assert {record["rest"].count(":") for record in records} == {1}


def test_a_prompt_beside_whole_conversations_is_carried_along(tmp_path: Path) -> None:
    chosen, _ = read_row(tmp_path, {"prompt": "q", "chosen": MESSAGES, "rejected": MESSAGES})
    assert said(chosen) == PAIR
    assert json.loads(chosen["rest"]) == {"prompt": "q", "assay_side": "chosen"}


def test_a_prompt_beside_whole_transcripts_is_carried_along(tmp_path: Path) -> None:
    text = "\n\nHuman: q\n\nAssistant: "
    records = read_row(tmp_path, {"prompt": text, "chosen": f"{text}a", "rejected": f"{text}b"})
    assert [said(record) for record in records] == [PAIR, [ASKED, ("assistant", "b")]]
    assert json.loads(records[0]["rest"]) == {"prompt": text, "assay_side": "chosen"}


def test_an_answer_that_begins_with_a_speakers_name_stays_one(tmp_path: Path) -> None:
    first, _ = read_row(tmp_path, {"prompt": "q", "chosen": "Human: a species.", "rejected": "b"})
    assert said(first) == [ASKED, ("assistant", "Human: a species.")]


def test_several_texts_a_side_are_several_answers(tmp_path: Path) -> None:
    records = read_row(tmp_path, {"prompt": "q", "chosen": ["a", "b"], "rejected": ["c"]})
    assert sides(records) == [("chosen", "a"), ("chosen", "b"), ("rejected", "c")]
    assert [record["part"] for record in records] == [0, 1, 2]


def test_a_bad_side_leaves_the_other_whole(tmp_path: Path) -> None:
    good, bad = read_row(tmp_path, {"prompt": "q", "chosen": "a", "rejected": ""})
    assert (good["outcome"], bad["reason"]) == ("ok", "empty_content: message 2 (assistant)")


def test_a_transcript_keeps_its_texts_to_the_byte(tmp_path: Path) -> None:
    text = "\n\nHuman:  two spaces \n\nAssistant: a\n\nb: c\n\nHuman: x\n\nAssistant: y "
    record, other = read_row(tmp_path, {"chosen": text, "rejected": "no transcript"})
    assert said(record) == [
        ("user", " two spaces "),
        ("assistant", "a\n\nb: c"),
        ("user", "x"),
        ("assistant", "y "),
    ]
    assert other["reason"].startswith("not_a_transcript: ")
