"""Every kept record is in a file or is counted among what was left out of it, whatever the trainer."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from stages import decide

from assay.core.errors import AssayError
from assay.core.schema import ROLES, FullMessage, MessageFields
from assay.export import EXPORTS, PAIR_EXPORTS, RECORD_EXPORTS, PairChoice, default_exports, wanted
from assay.export.additions import DECISIONS
from assay.export.contract import (
    AtOnce,
    Companion,
    Export,
    ToWrite,
    Unit,
    items_in,
    refusals,
    rows_of_block,
)
from assay.export.files import Exported
from assay.export.kept import Item, KeptRecords, items_of
from assay.export.results import kept_records, write_results
from assay.export.steerlm import CONVERTED
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.manifests import reason_code
from assay.storage.run_manifest import RUN_MANIFEST
from assay.storage.stage import RunContext

SCORES = Turn((2.37, 3.5, 2.5, 0.5, -1.25))
ROLE = {role[0]: role for role in ROLES}


def record(roles: str, line: int = 1, *, rest: str | None = None) -> Record:
    """One whose messages have these roles; each says where it is."""
    messages = tuple((ROLE[letter], f"{line}.{at}") for at, letter in enumerate(roles))
    return Record(line, messages, (SCORES,) * roles.count("a"), rest=rest)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def written(made: Made, *exports: Export[Item]) -> tuple[Exported, Path]:
    """What these exports wrote of records that are all kept, and where."""
    staging = Path(tempfile.mkdtemp(dir=made.home.root))
    filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
    return write_results(
        made.converted, made.scored, filtered, ToWrite(exports), RunContext(made.home), staging=staging
    ), staging


def blocks(made: Made) -> list[KeptRecords]:
    filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
    return [
        kept
        for piece, scored, decided in zip(
            made.converted.pieces, made.scored.pieces, filtered.pieces, strict=True
        )
        for kept in kept_records(piece, scored, decided, made.scored.attributes, made.home)
    ]


def lines_in(path: Path) -> list[int]:
    """The lines that the records of a file came from, as the text of each says in whatever form it stands."""
    if path.suffix == ".parquet":
        rows = [str(row).encode() for row in pl.read_parquet(path).select("messages").iter_rows()]
    else:
        rows = path.read_bytes().splitlines()
    # A text stands between quotes, or in a longer one between line ends.
    found = [re.search(rb"(?:[\"']|\\n)(\d+)\.\d+(?:[\"']|\\n)", row) for row in rows]
    return [int(one[1]) for one in found if one is not None]


any_roles = st.lists(st.sampled_from("suat"), max_size=6).map(lambda letters: "u" + "".join(letters) + "a")


@pytest.mark.slow
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.lists(any_roles, max_size=12), min_size=1, max_size=3))
def test_every_kept_record_is_in_each_file_or_is_counted_as_left_out(
    tmp_path: Path, pieces: Sequence[Sequence[str]]
) -> None:
    home = Home(Path(tempfile.mkdtemp(dir=tmp_path)))
    roles = [roles for piece in pieces for roles in piece]
    numbers = iter(range(len(roles)))
    made = make(home, {"a.jsonl": [[record(each, next(numbers)) for each in piece] for piece in pieces]})
    exported, staging = written(made, *RECORD_EXPORTS.values(), CONVERTED)
    assert (staging / RECORD_EXPORTS["dropped"].file).read_bytes() == b""
    for export in (*RECORD_EXPORTS.values(), CONVERTED):
        if export.name == "dropped":
            continue
        items = [item for kept in blocks(made) for item in items_in(export, items_of(kept))]
        reasons = refusals(export, items)
        found = lines_in(staging / export.file)
        told = exported.exports[export.name]
        assert found == [item.line for item, reason in zip(items, reasons, strict=True) if reason is None]
        assert told.left_out == Counter(reason_code(reason) for reason in reasons if reason is not None)
        assert told.rows + sum(told.left_out.values()) == len(items)
        assert len(items) == sum(each.count("a") if export.unit is Unit.TURN else 1 for each in roles)
        assert (told.file, told.rows) == (export.file, exported.files[export.file].rows)
    assert exported.exports["messages"].left_out == {}
    assert set(pl.read_parquet(staging / DECISIONS)["outcome"]) <= {"kept"}


def test_what_a_row_of_steerlm_cannot_express_is_left_out_of_that_file_alone(home: Home) -> None:
    records = [record(roles, line) for line, roles in enumerate(("ua", "usa", "uta", "susa", "sua", "uata"))]
    exported, staging = written(make(home, {"a.jsonl": [records]}), *RECORD_EXPORTS.values())
    assert exported.exports["steerlm"].left_out == {
        "late_system_message": 1,
        "several_system_messages": 1,
        "tool_message": 2,
    }
    assert lines_in(staging / "labeled.jsonl") == [0, 4]
    assert lines_in(staging / "messages.jsonl") == [0, 1, 2, 3, 4, 5]


CALL = FullMessage(
    "assistant", "", MessageFields(tool_calls='[{"function":{"name":"f"}}]', content_is="null")
)
RESULT = FullMessage("tool", "9.2", MessageFields(tool_call_id="c1", carried='{"weight":0.10}'))
REASONED = FullMessage("assistant", "9.3", MessageFields(reasoning_content="Hm.", carried='{"train":false}'))


def test_messages_have_what_they_held_and_the_tools_and_a_row_of_steerlm_has_neither(home: Home) -> None:
    user = ("user", "9.0")
    tools = '[{"type":"function","function":{"name":"f"}}]'
    beside = replace(CALL, content="9.1", fields=replace(CALL.fields, content_is=None))
    records = [
        Record(1, (user, CALL, RESULT, REASONED), (SCORES,), tools=tools),
        Record(2, (user, beside, RESULT, REASONED), (SCORES, SCORES)),
        Record(3, (user, beside), (SCORES,)),
        Record(4, (user, CALL, ("assistant", "9.4")), (SCORES,)),
        Record(5, (user, ("assistant", "9.4")), (SCORES,), tools=tools),
        Record(6, (user, REASONED), (SCORES,)),
    ]
    made = make(home, {"a.jsonl": [records]})
    exported, staging = written(made, *RECORD_EXPORTS.values())
    assert exported.exports["steerlm"].left_out == {"tool_call": 3, "tool_message": 1, "tools": 1}
    assert exported.exports["steerlm"].without == {"reasoning_content": 1, "train": 1}
    assert exported.exports["messages"].without == {}
    (row,) = [json.loads(line) for line in (staging / "labeled.jsonl").read_bytes().splitlines()]
    assert row["conversations"][1]["value"] == "9.3"
    lines = (staging / "messages.jsonl").read_bytes().splitlines()
    assert len(lines) == len(records)
    first = json.loads(lines[0])
    assert first["tools"] == tools
    assert json.loads(lines[1])["tools"] == "[]"
    call = {"id": None, "type": None, "function": {"name": "f", "arguments": "{}"}}
    assert [
        {name: value for name, value in one.items() if value is not None} for one in first["messages"]
    ] == [
        {"role": "user", "content": "9.0"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "9.2", "tool_call_id": "c1", "weight": 0.1},
        {"role": "assistant", "content": "9.3", "reasoning_content": "Hm.", "train": False},
    ]
    keys = ["role", "content", "reasoning_content", "tool_calls", "tool_call_id", "train", "weight"]
    assert {tuple(one) for line in lines for one in json.loads(line)["messages"]} == {tuple(keys)}
    assert b'"weight":0.10' in lines[0]
    assert [len(item.scores) for kept in blocks(made) for item in items_of(kept)] == [1, 2, 1, 1, 1, 1]


def test_an_item_is_the_record_with_the_scores_of_its_turns(home: Home) -> None:
    first = replace(record("uaua", 3, rest='{"n":1.10}'), labels=(None, "quality:1", None, ""), part=2)
    second = Record(4, turns=(Turn((1.0, 2.0, 3.0, 4.0, 0.0)),))
    (kept,) = blocks(make(home, {"a.jsonl": [[first, second]]}))
    one, other = items_of(kept)
    assert (one.file, one.line, one.part, one.roles) == ("a.jsonl", 3, 2, "uaua")
    assert [message.content for message in one.messages] == ["3.0", "3.1", "3.2", "3.3"]
    assert one.labels == [None, "quality:1", None, ""]
    assert one.attributes == HELPSTEER
    assert [scores[1] for scores in one.scores] == [3.5, 3.5]
    assert one.rest == '{"n":1.10}'
    assert (other.labels, other.rest, other.scores) == (None, None, [(1.0, 2.0, 3.0, 4.0, 0.0)])


@pytest.mark.parametrize(
    ("rest", "side"),
    [
        ('{"assay_side":"chosen"}', "chosen"),
        ('{"id":1,"assay_side": "rejected" }', "rejected"),
        ('{"assay_side":"left"}', None),
        ('{"assay_side":{"a":1}}', None),
        ('{"assay_side":null}', None),
        ('{"note":"assay_side"}', None),
        (None, None),
    ],
)
def test_the_side_of_a_record_is_read_from_its_other_fields(rest: str | None, side: str | None) -> None:
    assert Item("a", 1, 0, "ua", (), None, (), [], rest).side == side


def test_scores_of_other_turns_are_refused(home: Home) -> None:
    (kept,) = blocks(make(home, {"a.jsonl": [[record("ua"), record("uaa", 2)]]}))
    scores = kept.scores
    for others in (scores.head(2), scores.sort("row", descending=True), scores.vstack(scores)):
        with pytest.raises(ValueError, match="out of step"):
            list(items_of(kept._replace(scores=others)))


ROWS: Export[Item] = Export(
    name="rows",
    file="rows.jsonl",
    description="what a trainer's author writes: a function of an item",
    refuses=lambda item: f"odd_line: {item.line}" if item.line % 2 else None,
    row=lambda item: {"line": item.line, "extra": None if item.rest is None else Raw(item.rest.encode())},
)


def test_a_row_carries_raw_json_to_the_digit_on_one_line(home: Home) -> None:
    records = [record("ua", 2, rest='{"n":1.10,\r\n "m": 12345678901234567890123}'), record("ua", 3)]
    (kept,) = blocks(make(home, {"a.jsonl": [records]}))
    lines = rows_of_block(ROWS, kept)
    assert lines.lines == b'{"line":2,"extra":{"n":1.10,   "m": 12345678901234567890123}}\n'
    assert (lines.rows, lines.left_out) == (1, {"odd_line": 1})


def test_rows_written_at_once_are_those_written_one_by_one(home: Home) -> None:
    def lines(kept: KeptRecords) -> bytes:
        assert kept.scores["row"].unique().sort().to_list() == kept.records["row"].to_list()
        return b"".join(b'{"line":%d,"extra":null}\n' % number for number in kept.records["line"])

    for number, few in enumerate((range(1), range(1, 2), range(9), range(1, 9))):
        made = make(Home(home.root / str(number)), {"a.jsonl": [[record("uaua", line) for line in few]]})
        (kept,) = blocks(made)
        assert rows_of_block(replace(ROWS, row=AtOnce(lines)), kept) == rows_of_block(ROWS, kept)


def companion(name: str) -> Companion:
    return Companion(
        name, lambda told: repr([(one.file, one.rows, one.left_out) for one in told.values()]).encode()
    )


def test_a_companion_is_made_of_what_was_written_by_all_that_share_it(home: Home) -> None:
    made = make(home, {"a.jsonl": [[record("ua", line) for line in (1, 2, 3)]]})
    info = companion("info.json")
    one = replace(ROWS, companions=(info, companion("r/a.yaml")))
    other = replace(ROWS, name="all", file="r/all.jsonl", refuses=None, companions=(info,))
    exported, staging = written(made, one, other, RECORD_EXPORTS["messages"])
    assert (staging / "r/a.yaml").read_text() == "[('rows.jsonl', 1, {'odd_line': 2})]"
    shared = "[('rows.jsonl', 1, {'odd_line': 2}), ('r/all.jsonl', 3, {})]"
    assert (staging / "info.json").read_text() == shared
    assert (exported.files["info.json"].size, exported.files["info.json"].rows) == (len(shared), None)


@pytest.mark.parametrize(
    "name",
    ["rows.jsonl", "messages.jsonl", DECISIONS, RUN_MANIFEST, "../i.json", "a/b/i.json", "/i", "./i", ""],
)
def test_a_companion_has_a_name_of_its_own(home: Home, name: str) -> None:
    made = make(home, {"a.jsonl": [[record("ua")]]})
    with pytest.raises(AssayError, match=r"export rows: .* is no name for a file of it"):
        written(made, replace(ROWS, companions=(companion(name),)), RECORD_EXPORTS["messages"])


def test_the_table_names_each_export_and_each_file_once() -> None:
    assert {name: export.name for name, export in EXPORTS.items()} == {name: name for name in EXPORTS}
    files = [export.file for export in (*EXPORTS.values(), CONVERTED)]
    assert len(set(files)) == len(files)


def test_messages_are_written_by_default_and_labels_where_the_model_rates_them() -> None:
    assert default_exports(["reward"]) == ("messages",)
    assert default_exports(["weighted_reward", "verbosity"]) == ("messages", "steerlm")


def test_a_run_writes_each_export_that_it_names_once_and_none_where_it_stops_early() -> None:
    messages, steerlm = RECORD_EXPORTS["messages"], RECORD_EXPORTS["steerlm"]
    assert wanted(["messages", "steerlm", "messages"], None) == ToWrite((messages, steerlm))
    mixed = wanted(["trl-reward", "messages", "trl-reward"], None, PairChoice("all"))
    assert mixed == ToWrite((messages,), (PAIR_EXPORTS["trl-reward"],), PairChoice("all"))
    assert wanted(["messages", "trl-reward"], "convert") == ToWrite((CONVERTED,))
    assert wanted(["messages"], "score") == ToWrite()
