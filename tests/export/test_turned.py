"""What files hold of a record of which a turn failed: what is before the turn, or a mark on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from handmade import HELPSTEER, Record, Turn, make
from stages import build, decide

from assay.core.schema import Message, MessageFields, message_with
from assay.export import RECORD_EXPORTS
from assay.export.chat import messages_of
from assay.export.files import Exported
from assay.export.kept import Held
from assay.export.turned import weighed
from assay.select.kinds import OnFail
from assay.select.rules import parse_rules
from assay.select.selection import Selection
from assay.storage.home import Home

MESSAGES = (
    ("system", "S"),
    ("user", "a"),
    ("assistant", "good"),
    ("user", "b"),
    ("assistant", "bad"),
    ("user", "c"),
    ("assistant", "good again"),
)


CALLS = '[{"type":"function","function":{"name":"times","arguments":{"a":6,"b":7}},"id":"c1"}]'
TOOLS = '[{"type":"function","function":{"name":"times"}}]'

#: As NeMo-Aligner's rows have what is before the last message.
NEMO_PROMPT = "\n<extra_id_1>".join(["a", "Assistant\ngood", "User\nb", "Assistant\nbad", "User\nc"])


#: Gives the folder of the results, and what the exports wrote.
Results = Callable[[OnFail], tuple[Path, Exported]]


def turn(helpfulness: float, quality: float | None = None) -> Turn:
    given = None if quality is None else {"quality": quality}
    return Turn((helpfulness, 3.0, 3.0, 1.0, 1.0), given=given)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Results of the records below."""
    # Where the originals of what is in quarantine are read.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text("x\n")
    labels = tuple(None if role != "assistant" else "quality:3" for role, _ in MESSAGES)
    records = [
        Record(1, MESSAGES, (turn(3.0, 2.5), turn(1.0), turn(4.0)), labels=labels, nemo_prompt=NEMO_PROMPT),
        Record(2, MESSAGES[:3], (turn(3.5),)),
        Record(3, MESSAGES[:3], (turn(0.0),)),
        Record(4, MESSAGES[:3], (Turn(None, "too_long: 9"),)),
        Record(5, None, outcome="quarantined", reason="not_json: x"),
    ]

    def made(on_fail: OnFail) -> tuple[Path, Exported]:
        folder = make(Home(tmp_path / "home"), {"a.jsonl": [records[:1], records[1:]]})
        rules = parse_rules(["helpfulness >= 2"], attributes=HELPSTEER)
        selection = Selection(on_fail=on_fail)
        filtered = decide(folder.converted, folder.scored, rules=rules, home=folder.home, selection=selection)
        staging = tmp_path / on_fail
        staging.mkdir()
        exported = build(
            folder.converted,
            folder.scored,
            filtered,
            home=folder.home,
            staging=staging,
            exports=("steerlm", "messages"),
        )
        return staging, exported

    return made


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def turns_of(staging: Path) -> list[tuple[object, ...]]:
    table = pl.read_parquet(staging / "decisions-turns.parquet")
    assert table.columns == ["file", "line", "part", "turn", "outcome", "reason"]
    return table.select("line", "turn", "outcome", "reason").rows()


FAILED = "rule: helpfulness >= 2"
NO_SCORE = "too_long: turn 0: 9"


def test_a_record_is_cut_before_the_turn_in_every_file(results: Results) -> None:
    staging, exported = results("truncate")
    first, second = rows(staging / "messages.jsonl")
    assert [message["content"] for message in first["messages"]] == ["S", "a", "good"]
    assert [one["turn"] for one in first["scores"]] == [0]
    assert first["source"]["line"] == 1
    assert len(second["messages"]) == 3
    steerlm = rows(staging / "labeled.jsonl")
    assert [len(row["conversations"]) for row in steerlm] == [2, 2]
    assert {name: dict(one.left_out) for name, one in exported.exports.items()} == {
        "steerlm": {},
        "messages": {},
    }
    assert turns_of(staging) == [
        (1, 0, "kept", None),
        (1, 1, "cut", FAILED),
        (1, 2, "cut", FAILED),
        (2, 0, "kept", None),
        (3, 0, "dropped", FAILED),
        (4, 0, "quarantined", NO_SCORE),
    ]


def test_a_masked_turn_has_no_weight_and_a_file_that_cannot_hold_it_leaves_the_record_out(
    results: Results,
) -> None:
    staging, exported = results("mask")
    first, second = rows(staging / "messages.jsonl")
    # Every message has the field, since datasets dies on one that it sees late.
    assert [message["weight"] for message in first["messages"]] == [None, None, None, None, 0, None, None]
    assert [message["content"] for message in first["messages"]] == [text for _, text in MESSAGES]
    assert [one["turn"] for one in first["scores"]] == [0, 1, 2]
    assert [message["weight"] for message in second["messages"]] == [None, None, None]
    assert [row["conversations"][1]["value"] for row in rows(staging / "labeled.jsonl")] == ["good"]
    assert exported.exports["steerlm"].left_out == {"masked_turn": 1}
    assert [outcome for *_, outcome, _ in turns_of(staging)] == [
        "kept",
        "masked",
        "kept",
        "kept",
        "dropped",
        "quarantined",
    ]


def test_a_record_that_is_cut_has_the_turns_that_are_left_and_not_nemos_text_of_what_was_before_the_last(
    results: Results,
) -> None:
    staging, _ = results("truncate")
    first = rows(staging / "messages.jsonl")[0]
    assert [one["given.quality"] for one in first["scores"]] == [2.5]
    conversations = rows(staging / "labeled.jsonl")[0]["conversations"]
    assert [one["value"] for one in conversations] == ["a", "good"]


#: What marks a masked turn in a file that can say so, and an answer to learn from.
MARKS: dict[str, tuple[str, str, object, object]] = {
    "messages": ("messages.jsonl", "weight", 0, None),
    "openai": ("openai/sft.jsonl", "weight", 0, 1),
    "axolotl-sft": ("axolotl/sft.jsonl", "train", False, True),
    "swift-sft": ("swift/sft.jsonl", "loss", False, True),
}


def masked_in(tmp_path: Path, name: str) -> tuple[Path, Exported]:
    """The file of an export of a record whose second turn of three fails, and of one that is good."""
    records = [
        Record(1, MESSAGES, (turn(3.0), turn(1.0), turn(4.0)), rest='{"assay_side":"chosen"}'),
        Record(2, MESSAGES[:3], (turn(3.5),), rest='{"assay_side":"chosen"}'),
    ]
    made = make(Home(tmp_path / "home"), {"a.jsonl": [records]})
    rules = parse_rules(["helpfulness >= 2"], attributes=HELPSTEER)
    selection = Selection(on_fail="mask")
    filtered = decide(made.converted, made.scored, rules=rules, home=made.home, selection=selection)
    staging = tmp_path / "out"
    staging.mkdir()
    return staging, build(
        made.converted, made.scored, filtered, home=made.home, staging=staging, exports=(name,)
    )


@pytest.mark.parametrize("name", MARKS)
def test_a_file_that_can_mark_a_turn_holds_the_record_with_the_mark(tmp_path: Path, name: str) -> None:
    staging, exported = masked_in(tmp_path, name)
    file, mark, masked, trained = MARKS[name]
    first, second = rows(staging / file)
    marks = [message.get(mark) for message in first["messages"] if message["role"] == "assistant"]
    assert marks == [trained, masked, trained]
    assert [one.get(mark) for one in second["messages"] if one["role"] == "assistant"] == [trained]
    assert exported.exports[name].left_out == {}


OTHERS = [name for name in RECORD_EXPORTS if name not in {*MARKS, "parquet", "dropped", "steerlm-regression"}]


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_cannot_leaves_the_record_out_as_a_masked_turn(tmp_path: Path, name: str) -> None:
    _, exported = masked_in(tmp_path, name)
    assert (exported.exports[name].rows, exported.exports[name].left_out) == (1, {"masked_turn": 1})


def test_of_a_file_of_turns_the_masked_one_is_left_out(tmp_path: Path) -> None:
    _, exported = masked_in(tmp_path, "steerlm-regression")
    of_turns = exported.exports["steerlm-regression"]
    assert (of_turns.rows, of_turns.left_out) == (3, {"masked_turn": 1})


def test_without_it_there_is_no_table_of_turns(results: Results) -> None:
    staging, _ = results("drop")
    assert not (staging / "decisions-turns.parquet").exists()


def test_a_weight_changes_no_other_letter_of_a_message() -> None:
    messages = '[{"role":"user","content":"\\u00e9"},{"role":"assistant","content":"x","n":1e400}]'
    assert weighed("ua", messages, [0]) == messages.replace("1e400}", '1e400,"weight":0}')
    assert weighed("ua", messages, []) == messages


#: A call of a tool, which is no turn, its result, and two turns. What messages hold beside their text stays.
WITH_CALL = (
    Message("user", "6 times 7?"),
    message_with("assistant", "", MessageFields(tool_calls=CALLS, content_is="null", carried='{"weight":1}')),
    message_with("tool", "42", MessageFields(tool_call_id="c1")),
    message_with("assistant", "It is 42.", MessageFields(reasoning_content="6 * 7", carried='{"weight":1}')),
    Message("user", "Sure?"),
    Message("assistant", "No."),
)


@pytest.mark.parametrize(
    ("on_fail", "scores", "left", "weights"),
    [
        ("truncate", (3.0, 0.0), 4, [None, 1, None, 1]),
        ("mask", (0.0, 3.0), 6, [None, 1, None, 0, None, None]),
    ],
)
def test_a_call_of_a_tool_is_no_turn_and_what_messages_hold_stays(
    tmp_path: Path, on_fail: OnFail, scores: tuple[float, ...], left: int, weights: list[int | None]
) -> None:
    staging = tmp_path / "out"
    staging.mkdir()
    record = Record(1, WITH_CALL, tuple(map(turn, scores)), tools=TOOLS)
    made = make(Home(tmp_path / "home"), {"a.jsonl": [[record]]})
    rules = parse_rules(["helpfulness >= 2"], attributes=HELPSTEER)
    filtered = decide(
        made.converted, made.scored, rules=rules, home=made.home, selection=Selection(on_fail=on_fail)
    )
    build(made.converted, made.scored, filtered, home=made.home, staging=staging, exports=("messages",))
    (row,) = rows(staging / "messages.jsonl")
    assert [message.pop("weight") for message in row["messages"]] == weights
    whole = messages_of(WITH_CALL[:left], Held.in_records(made.converted))
    assert row["messages"] == whole
    assert row["tools"] == TOOLS
