"""What people gave a turn comes out beside what the model gives it; HelpSteer2's rows as NeMo has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from converting import converted_file, steerlm_rows
from handmade import Record, Turn, make
from stages import build, decide

from assay.core import steerlm
from assay.core.schema import Message
from assay.select.rules import Rules
from assay.storage.home import Home

TALK = (("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
RATED = Turn((1.0, 2.0, 3.0, 4.0, 0.5))
PROMPT = "q\n<extra_id_1>Assistant\na\n<extra_id_1>User\nr"


def written(tmp_path: Path, *records: Record) -> Path:
    """The folder with the result files of these records."""
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[record] for record in records]})
    staging = tmp_path / "staging"
    staging.mkdir()
    filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
    exports = ("steerlm", "messages", "steerlm-regression", "parquet")
    build(made.converted, made.scored, filtered, home=made.home, staging=staging, exports=exports)
    return staging


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_what_people_gave_stands_beside_the_scores(tmp_path: Path) -> None:
    rated = replace(RATED, given={"helpfulness": 3.5, "strength": -2.0})
    folder = written(tmp_path, Record(1, TALK, (RATED, rated)), Record(2, TALK[:2], (RATED,)))
    first, second = lines(folder / "messages.jsonl")
    assert [
        (score["given.helpfulness"], score["given.strength"])
        for score in (*first["scores"], *second["scores"])
    ] == [(None, None), (3.5, -2.0), (None, None)]
    assert {tuple(score) for score in (*first["scores"], *second["scores"])} == {tuple(first["scores"][0])}
    scores = pl.read_parquet(folder / "scores.parquet")
    assert scores["given.helpfulness"].to_list() == [None, 3.5, None]
    assert scores["given.strength"].to_list() == [None, -2.0, None]
    assert scores["helpfulness"].to_list() == [1.0, 1.0, 1.0]
    of_records = pl.read_parquet(folder / "records.parquet")["scores"]
    assert [[turn["given.helpfulness"] for turn in turns] for turns in of_records] == [[None, 3.5], [None]]


def test_without_anything_given_the_files_have_no_such_column(tmp_path: Path) -> None:
    folder = written(tmp_path, Record(1, TALK, (RATED, RATED)))
    assert not [name for name in pl.read_parquet_schema(folder / "scores.parquet") if "given" in name]
    assert b"given" not in (folder / "messages.jsonl").read_bytes()


def test_a_prompt_of_several_turns_is_one_turn_in_its_steerlm_row(tmp_path: Path) -> None:
    talk = (("system", "s"), *TALK)
    folder = written(tmp_path, Record(1, talk, (RATED, RATED), nemo_prompt=PROMPT))
    (row,) = lines(folder / "labeled.jsonl")
    assert [turn["value"] for turn in row["conversations"]] == [PROMPT, "b"]
    assert [turn["from"] for turn in row["conversations"]] == ["User", "Assistant"]
    assert row["system"] == "s"
    assert [len(row["messages"]) for row in lines(folder / "messages.jsonl")] == [5]
    inner, last = lines(folder / "nemo-aligner/regression.jsonl")
    assert [last] == list(
        steerlm.regression_rows(
            [Message("system", "s"), Message("user", PROMPT), Message("assistant", "b")],
            [None, None, row["conversations"][1]["label"]],
        )
    )
    assert inner["text"].endswith("\na\n<extra_id_2>")


def test_nemos_own_rows_of_several_turns_come_back_as_they_were(tmp_path: Path) -> None:
    turns = [
        {"value": PROMPT, "from": "User", "label": None},
        {"value": "b", "from": "Assistant", "label": "helpfulness:4"},
    ]
    row = {"conversations": turns, "system": steerlm.NEMO_SYSTEM, "mask": "User", "type": "VALUE_TO_TEXT"}
    outcome = converted_file(tmp_path, json.dumps(row).encode())
    assert outcome.records[0]["roles"] == "uaua"
    assert steerlm_rows(tmp_path, outcome.converted) == [row]


def test_helpsteer2s_rows_of_several_turns_keep_nemos_bytes(tmp_path: Path) -> None:
    row = {"prompt": PROMPT, "response": "b", "helpfulness": 4.0, "correctness": 2.5}
    outcome = converted_file(tmp_path, json.dumps(row).encode())
    assert outcome.records[0]["roles"] == "uaua"
    assert steerlm_rows(tmp_path, outcome.converted) == [
        {
            "conversations": [
                {"value": PROMPT, "from": "User", "label": None},
                {"value": "b", "from": "Assistant", "label": "helpfulness:4,correctness:2"},
            ],
            "system": steerlm.NEMO_SYSTEM,
            "mask": "User",
            "type": "VALUE_TO_TEXT",
        }
    ]
    assert [turn["given"] for turn in outcome.turns] == [
        None,
        '{"given.helpfulness":4.0,"given.correctness":2.5}',
    ]
