from __future__ import annotations

import base64
import gzip
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stages import build, convert, decide, take_inventory

from assay.core.digests import digest_of_file
from assay.core.errors import AssayError, InputFault, UserMistake
from assay.export import EXPORTS, RECORD_EXPORTS, check_exports, of_piece
from assay.export import files as export_files
from assay.read.sources import read_originals
from assay.select.rules import Rules, parse_rules
from assay.storage.disk import full_disk_named
from assay.storage.home import Home

TWO_TURNS = (
    ("system", "Be kind."),
    ("user", "Où ? \u2028 \U0001f642"),
    ("assistant", "Là."),
    ("user", "Thanks"),
    ("assistant", 'He said "\x00no".'),
)
TOOL = (("user", "Weather?"), ("tool", "3 °C"), ("assistant", "Cold."))


def rated(*values: float) -> Turn:
    return Turn(tuple(values) or (2.37, 3.5, 2.5, 0.5, -1.25))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def built(
    made: Made,
    *rules: str,
    exports: Sequence[str] = ("steerlm", "messages"),
    stop_after: Literal["convert", "score"] | None = None,
    name: str = "staging",
) -> Path:
    staging = made.home.root / name
    staging.mkdir(parents=True)
    scored = None if stop_after == "convert" else made.scored
    filtered = decide(
        made.converted,
        scored,
        rules=parse_rules(rules, attributes=made.scored.attributes, allow_cross_prompt=True),
        home=made.home,
    )
    exported = build(
        made.converted,
        scored,
        filtered,
        home=made.home,
        staging=staging,
        exports=exports,
        stop_after=stop_after,
    )
    assert {str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file()} == set(
        exported.files
    )
    for name, file in exported.files.items():
        path = staging / name
        assert (file.digest, file.size) == (digest_of_file(path), path.stat().st_size), name
        if file.rows is None:
            continue
        if name.endswith(".jsonl"):
            assert file.rows == path.read_bytes().count(b"\n")
        else:
            assert file.rows == pl.read_parquet(path).height
    return staging


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def original_file(tmp_path: Path, *lines: bytes) -> tuple[str, list[tuple[int, int]]]:
    """A file of lines, and (offset, length) of each."""
    path = tmp_path / "input.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    offsets = [sum(len(before) + 1 for before in lines[:number]) for number in range(len(lines))]
    return str(path), [(offset, len(line)) for offset, line in zip(offsets, lines, strict=True)]


def test_every_assistant_turn_of_a_steerlm_row_is_labelled_by_its_own_scores(home: Home) -> None:
    record = Record(1, TWO_TURNS, (rated(2.37, 3.5, 2.5, 0.5, -1.25), rated(4.6, 1.5, 0.0, 1.0, 3.49)))
    (row,) = rows(built(make(home, {"a.jsonl": [[record]]})) / "labeled.jsonl")
    assert list(row) == ["conversations", "system", "mask", "type"]
    assert row["system"] == "Be kind."
    assert [turn.get("label") for turn in row["conversations"]] == [
        None,
        "helpfulness:2,correctness:4,coherence:2,complexity:0,verbosity:0",
        None,
        "helpfulness:4,correctness:2,coherence:0,complexity:1,verbosity:3",
    ]
    assert [turn["value"] for turn in row["conversations"]] == [text for _, text in TWO_TURNS[1:]]


def test_a_messages_row_has_the_raw_scores_and_where_it_came_from(home: Home) -> None:
    record = Record(
        7, TWO_TURNS, (rated(), rated(1, 2, 3, 4, 0)), part=3, rest='{"id":123456789012345678901234567890}'
    )
    staging = built(make(home, {'dir/"odd"\n.jsonl': [[record]]}))
    assert rows(staging / "messages.jsonl")[0]["extra"] == '{"id":123456789012345678901234567890}'
    (row,) = rows(staging / "messages.jsonl")
    assert list(row) == ["messages", "scores", "source", "extra"]
    assert row["messages"] == [{"role": role, "content": text} for role, text in TWO_TURNS]
    assert row["scores"] == [
        {
            "turn": 0,
            "helpfulness": 2.37,
            "correctness": 3.5,
            "coherence": 2.5,
            "complexity": 0.5,
            "verbosity": -1.25,
        },
        {"turn": 1, "helpfulness": 1, "correctness": 2, "coherence": 3, "complexity": 4, "verbosity": 0},
    ]
    assert row["source"] == {"file": 'dir/"odd"\n.jsonl', "line": 7, "part": 3}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (("reward",), -0.25),
        (("reward", "helpfulness"), -0.25),
        (("helpfulness", "weighted_reward"), 3.1),
        (("reward", "weighted_reward"), 3.1),
        (("helpfulness",), 2.0),
        (("helpfulness", "toxicity"), None),
    ],
)
def test_score_is_the_one_number_of_the_last_turn_where_the_model_has_one(
    home: Home, tmp_path: Path, attributes: tuple[str, ...], expected: float | None
) -> None:
    values = {"reward": (4.0, -0.25), "weighted_reward": (9.0, 3.1)}
    turns = [Turn(tuple(values.get(name, (1.0, 2.0))[turn] for name in attributes)) for turn in (0, 1)]
    path, ((offset, length),) = original_file(tmp_path, b"bad")
    unscored = Record(1, turns=(Turn(None, "too_long: 9"),), part=1, offset=offset, length=length)
    made = make(home, {path: [[Record(1, TWO_TURNS, tuple(turns)), unscored]]}, attributes=attributes)
    staging = built(made, exports=("messages",))
    (row,) = rows(staging / "messages.jsonl")
    scores = pl.read_parquet(staging / "scores.parquet")
    if expected is None:
        assert list(row) == ["messages", "scores", "source", "extra"]
        assert "score" not in scores.columns
        return
    assert list(row) == ["messages", "score", "scores", "source", "extra"]
    assert row["score"] == expected
    assert scores.schema["score"] == pl.Float32
    assert scores["score"].to_list() == [*made_of(values, attributes), None]


def made_of(values: Mapping[str, tuple[float, float]], attributes: tuple[str, ...]) -> list[float]:
    if len(attributes) == 1 and attributes[0] not in values:
        return [1.0, 2.0]
    one = values["weighted_reward" if "weighted_reward" in attributes else "reward"]
    return [float(np.float32(value)) for value in one]


def test_a_record_without_other_keys_has_no_extra(home: Home) -> None:
    (row,) = rows(built(make(home, {"a.jsonl": [[Record(1, turns=(rated(),))]]})) / "messages.jsonl")
    assert row["extra"] is None


def test_what_was_written_over_several_lines_is_one_line_of_the_file(home: Home) -> None:
    record = Record(1, turns=(rated(),), rest='{\r\n  "id":\n 1\n}')
    (row,) = rows(built(make(home, {"a.jsonl": [[record]]})) / "messages.jsonl")
    assert row["extra"] == record.rest


@pytest.mark.slow
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_a_score_is_written_with_the_fewest_digits_that_give_the_same_float32(
    tmp_path: Path, values: list[float]
) -> None:
    home = Home(Path(tempfile.mkdtemp(dir=tmp_path)))
    records = [Record(line, turns=(Turn((value,)),)) for line, value in enumerate(values, 1)]
    made = make(home, {"a.jsonl": [records]}, attributes=("reward",))
    found = [
        row["scores"][0]["reward"] for row in rows(built(made, exports=("messages",)) / "messages.jsonl")
    ]
    assert found == [float(str(np.float32(value))) for value in values]


@pytest.mark.slow
def test_only_kept_records_are_exported_in_input_order(home: Home) -> None:
    pieces = [
        [
            Record(line, (("user", "q"), ("assistant", f"a{line}")), (rated(line % 3, 0, 0, 0, 0),))
            for line in group
        ]
        for group in (range(1, 5000), range(5000, 5010), ())
    ]
    made = make(home, {"a.jsonl": pieces[:1], "b.jsonl": pieces[1:]})
    staging = built(made, "helpfulness >= 1")
    expected = [f"a{line}" for line in range(1, 5010) if line % 3]
    assert [row["conversations"][1]["value"] for row in rows(staging / "labeled.jsonl")] == expected
    assert [row["messages"][1]["content"] for row in rows(staging / "messages.jsonl")] == expected
    assert [row["source"]["file"] for row in rows(staging / "messages.jsonl")][-1] == "b.jsonl"


def test_only_the_exports_asked_for_are_written(home: Home) -> None:
    made = make(home, {"a.jsonl": [[Record(1, turns=(rated(),))]]})
    assert not (built(made, exports=("messages",), name="m") / "labeled.jsonl").exists()
    assert not (built(made, exports=("steerlm",), name="s") / "messages.jsonl").exists()


def test_every_record_is_in_decisions_once_and_in_order(home: Home, tmp_path: Path) -> None:
    path, spans = original_file(tmp_path, b"bad", b"{}")
    first, second = (partial(Record, offset=offset, length=length) for offset, length in spans)
    records = [
        first(1, None, outcome="quarantined", reason="not_json: char 1"),
        second(2, outcome="dropped", reason="one_message: x", part=0),
        second(2, part=1, turns=(rated(3, 0, 0, 0, 0),)),
        second(2, part=2, turns=(rated(1, 0, 0, 0, 0),)),
        second(2, TOOL, part=3, turns=(rated(3, 0, 0, 0, 0),)),
        second(2, part=4, turns=(Turn(None, "too_long: 9"),)),
    ]
    staging = built(make(home, {path: [records[:2], records[2:]]}), "helpfulness >= 2")
    decisions = pl.read_parquet(staging / "decisions.parquet")
    assert decisions.schema == {
        "file": pl.String,
        "line": pl.UInt64,
        "part": pl.UInt32,
        "outcome": pl.String,
        "reason": pl.String,
    }
    assert decisions.rows() == [
        (path, 1, 0, "quarantined", "not_json: char 1"),
        (path, 2, 0, "dropped", "one_message: x"),
        (path, 2, 1, "kept", None),
        (path, 2, 2, "dropped", "rule: helpfulness >= 2"),
        (path, 2, 3, "kept", None),
        (path, 2, 4, "quarantined", "too_long: turn 0: 9"),
    ]
    quarantined = [(row["line"], row["part"]) for row in rows(staging / "quarantine.jsonl")]
    assert quarantined == [(1, 0), (2, 4)]


def test_scores_hold_every_turn_of_every_scored_record_kept_or_not(home: Home) -> None:
    kept = Record(1, TWO_TURNS, (rated(0, 1, 2, 3, 4), rated(4, 3, 2, 1, 0.1)))
    dropped = Record(2, None, outcome="dropped", reason="x")
    made = make(home, {"a.jsonl": [[kept]], "b.jsonl": [[dropped]]})
    staging = built(made, "helpfulness > 9", exports=())
    scores = pl.read_parquet(staging / "scores.parquet")
    assert scores.schema == (
        {"file": pl.String, "line": pl.UInt64, "part": pl.UInt32, "turn": pl.UInt32}
        | dict.fromkeys(HELPSTEER, pl.Float32)
        | {"reason": pl.String, "tokens_cut": pl.UInt32}
    )
    assert scores.rows() == [
        ("a.jsonl", 1, 0, 0, 0.0, 1.0, 2.0, 3.0, 4.0, None, 0),
        ("a.jsonl", 1, 0, 1, 4.0, 3.0, 2.0, 1.0, float(np.float32(0.1)), None, 0),
    ]


def test_a_turn_without_scores_is_null_with_its_reason_in_scores(home: Home, tmp_path: Path) -> None:
    path, ((offset, length),) = original_file(tmp_path, b"{}")
    record = Record(
        1, TWO_TURNS, (rated(0, 1, 2, 3, 4), Turn(None, "too_long: 9", 7)), offset=offset, length=length
    )
    scores = pl.read_parquet(built(make(home, {path: [[record]]})) / "scores.parquet")
    assert scores.row(1) == (path, 1, 0, 1, *[None] * 5, "too_long: 9", 7)


def test_quarantine_has_the_original_bytes(home: Home, tmp_path: Path) -> None:
    lines = [b'{"torn": ', b"\xff\xfe latin", "{\u2028é\x00".encode(), b'{"fine": 1}']
    path, spans = original_file(tmp_path, *lines)
    records = [
        Record(line, None, outcome="quarantined", reason=f"not_json: {line}", offset=offset, length=length)
        for line, (offset, length) in enumerate(spans[:3], 1)
    ]
    records.append(Record(4, turns=(Turn(None, "too_long: 5"),), offset=spans[3][0], length=spans[3][1]))
    staging = built(make(home, {path: [records[:1], records[1:]]}))
    assert rows(staging / "quarantine.jsonl") == [
        {"file": path, "line": 1, "part": 0, "offset": 0, "reason": "not_json: 1", "original": '{"torn": '},
        {
            "file": path,
            "line": 2,
            "part": 0,
            "offset": spans[1][0],
            "reason": "not_json: 2",
            "original_base64": base64.b64encode(lines[1]).decode(),
        },
        {
            "file": path,
            "line": 3,
            "part": 0,
            "offset": spans[2][0],
            "reason": "not_json: 3",
            "original": lines[2].decode(),
        },
        {
            "file": path,
            "line": 4,
            "part": 0,
            "offset": spans[3][0],
            "reason": "too_long: turn 0: 5",
            "original": '{"fine": 1}',
        },
    ]


def test_originals_come_out_of_compressed_files_in_any_order_of_records(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl.gz"
    lines = [b"first", b"second", b"third"]
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    spans = [(0, 5), (6, 6), (13, 5)]
    order = [(2, 0), (0, 0), (2, 1), (1, 0), (0, 1), (2, 2)]
    records = [
        Record(
            at + 1,
            None,
            part=part,
            outcome="quarantined",
            reason="x",
            offset=spans[at][0],
            length=spans[at][1],
        )
        for at, part in order
    ]
    staging = built(make(home, {str(path): [records[:2], records[2:]]}))
    assert [row["original"].encode() for row in rows(staging / "quarantine.jsonl")] == [
        lines[at] for at, _ in order
    ]


def test_a_line_that_is_too_long_is_named_with_its_length_and_never_read(home: Home) -> None:
    record = Record(1, None, outcome="quarantined", reason="line_too_long: 9", offset=0, length=50_000_000)
    (row,) = rows(built(make(home, {"gone.jsonl": [[record]]})) / "quarantine.jsonl")
    assert row == {
        "file": "gone.jsonl",
        "line": 1,
        "part": 0,
        "offset": 0,
        "reason": "line_too_long: 9",
        "length": 50_000_000,
    }


@pytest.mark.parametrize("change", ["gone", "shorter", "other", "while it is read"])
def test_a_source_that_changed_meanwhile_is_named(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path, ((offset, length),) = original_file(tmp_path, b"{torn")
    made = make(
        home, {path: [[Record(1, None, outcome="quarantined", reason="x", offset=offset, length=length)]]}
    )
    source = tmp_path / "input.jsonl"
    if change == "gone":
        source.unlink()
    elif change == "while it is read":

        def changing(path: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
            source.write_bytes(b"{born\n")
            os.utime(source, ns=(0, source.stat().st_mtime_ns + 1_000_000))
            return read_originals(path, spans)

        monkeypatch.setattr("assay.export.quarantine.read_originals", lambda *given: changing(*given))
    else:
        source.write_bytes({"shorter": b"{", "other": b"{born\n"}[change])
    with pytest.raises(InputFault, match=r"input\.jsonl: quarantined records cannot be read again"):
        built(made)


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes_however_tables_are_gathered(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [
        [Record(line, turns=(rated(),)) for line in range(start, start + 500)] for start in (1, 501, 1001)
    ]
    made = make(home, {"a.jsonl": pieces})
    first = built(made, "helpfulness >= 2", exports=tuple(RECORD_EXPORTS), name="first")
    monkeypatch.setattr(export_files, "_PART_ROWS", 300)
    monkeypatch.setattr(of_piece, "_KEPT_AT_A_TIME", 70)
    second = built(made, "helpfulness >= 2", exports=tuple(RECORD_EXPORTS), name="second")
    names = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert len(names) > len(RECORD_EXPORTS)
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_no_records_at_all_give_empty_files_with_their_columns(home: Home) -> None:
    cases: list[dict[str, list[list[Record]]]] = [{}, {"a.jsonl": [[]]}]
    for number, files in enumerate(cases):
        staging = built(make(Home(home.root / str(number)), files), "helpfulness >= 2")
        assert pl.read_parquet(staging / "decisions.parquet").columns[:2] == ["file", "line"]
        assert pl.read_parquet(staging / "scores.parquet").height == 0
        assert (staging / "quarantine.jsonl").read_bytes() == b""
        assert (staging / "labeled.jsonl").read_bytes() == b""


def test_a_run_that_stops_after_convert_writes_rows_with_the_labels_they_came_with(
    home: Home, tmp_path: Path
) -> None:
    path, ((offset, length),) = original_file(tmp_path, b"{torn")
    record = Record(2, labels=(None, "quality:4,toxicity:0"))
    tool = Record(3, TOOL)
    bad = Record(1, None, outcome="quarantined", reason="x", offset=offset, length=length)
    staging = built(make(home, {path: [[bad, record, tool]]}), stop_after="convert")
    assert {file.name for file in staging.iterdir()} == {
        "converted.jsonl",
        "quarantine.jsonl",
        "decisions.parquet",
    }
    (row,) = rows(staging / "converted.jsonl")
    assert row["conversations"][1]["label"] == "quality:4,toxicity:0"
    assert pl.read_parquet(staging / "decisions.parquet").select("line", "outcome", "reason").rows() == [
        (1, "quarantined", "x"),
        (2, "kept", None),
        (3, "kept", None),
    ]


def test_extra_is_a_text_in_every_row_where_it_is_one_in_any(home: Home) -> None:
    with_rest = Record(2, turns=(rated(),), rest='{"id":1}')
    made = make(home, {"a.jsonl": [[Record(1, turns=(rated(),))], [with_rest]]})
    found = rows(built(made) / "messages.jsonl")
    assert [row["extra"] for row in found] == ["{}", '{"id":1}']


def test_what_was_dropped_is_written_on_request_with_its_reason_and_scores(
    home: Home, tmp_path: Path
) -> None:
    path, ((offset, length),) = original_file(tmp_path, b"bad")
    bad = Record(1, None, outcome="quarantined", reason="x", offset=offset, length=length)
    records = [
        bad,
        Record(2, turns=(rated(1, 1, 1, 1, 1),), rest='{"id":1}'),
        Record(3, turns=(rated(3, 1, 1, 1, 1),)),
        Record(4, (("user", "alone"),), outcome="dropped", reason="single_message_path"),
        Record(5, (), outcome="dropped", reason="no_messages: none"),
    ]
    made = make(home, {path: [records]})
    staging = built(made, "helpfulness >= 2", exports=("messages", "dropped"))
    found = rows(staging / "dropped.jsonl")
    assert [(row["source"]["line"], row["reason"], len(row["scores"])) for row in found] == [
        (2, "rule: helpfulness >= 2", 1),
        (4, "single_message_path", 0),
        (5, "no_messages: none", 0),
    ]
    assert found[0]["scores"][0]["helpfulness"] == 1.0
    assert [row["extra"] for row in found] == ['{"id":1}', "{}", "{}"]
    assert [row["source"]["line"] for row in rows(staging / "messages.jsonl")] == [3]


@pytest.mark.parametrize(
    "rest",
    ['{"q":"a \\"b\\" \\\\ \\u0000\\n\u2028 é\U0001f642"}', '{"n":[1e400,{}]}', '{"a":"\x7f\t"}', "{}"],
)
def test_extra_is_one_text_to_the_byte(home: Home, rest: str) -> None:
    (row,) = rows(
        built(make(home, {"a.jsonl": [[Record(1, turns=(rated(),), rest=rest)]]})) / "messages.jsonl"
    )
    assert row["extra"] == rest


def test_a_table_of_every_record_also_holds_what_is_not_kept(home: Home, tmp_path: Path) -> None:
    path, ((offset, length), _) = original_file(tmp_path, b"{torn", b"x")
    bad = Record(1, None, outcome="quarantined", reason="x: y", offset=offset, length=length)
    none = Record(2, None, outcome="dropped", reason="no_messages")
    out = Record(3, turns=(rated(1, 1, 1, 1, 1),))
    kept = Record(
        4,
        TWO_TURNS,
        (rated(2.37, 3.5, 2.5, 0.5, -1.25), rated(2, 2, 2, 2, 2)),
        labels=(None, None, "quality:1", None, None),
        rest='{"id": 1.10}',
    )
    made = make(home, {path: [[bad, none], [out, kept]]})
    staging = built(made, "helpfulness >= 2", exports=("parquet", "trl-sft"))
    table = pl.read_parquet(staging / "records.parquet")
    assert table.select("line", "outcome", "reason", "roles").rows() == [
        (1, "quarantined", "x: y", None),
        (2, "dropped", "no_messages", None),
        (3, "dropped", "rule: helpfulness >= 2", "ua"),
        (4, "kept", None, "suaua"),
    ]
    row = table.row(3, named=True)
    assert [(message["role"], message["content"]) for message in row["messages"]] == list(TWO_TURNS)
    assert [(turn["turn"], turn["verbosity"]) for turn in row["scores"]] == [(0, -1.25), (1, 2.0)]
    assert (row["labels"], row["extra"]) == ([None, None, "quality:1", None, None], '{"id": 1.10}')
    assert table["file"].to_list() == [path] * 4
    assert table["messages"].null_count() == table["scores"].null_count() == 2
    assert (staging / "trl" / "sft.jsonl").read_bytes().count(b"\n") == 1


def test_a_run_that_stops_after_score_exports_nothing_to_train_on(home: Home) -> None:
    staging = built(make(home, {"a.jsonl": [[Record(1, turns=(rated(),))]]}), stop_after="score")
    assert {file.name for file in staging.iterdir()} == {
        "scores.parquet",
        "quarantine.jsonl",
        "decisions.parquet",
    }
    assert pl.read_parquet(staging / "decisions.parquet")["outcome"].to_list() == ["kept"]


def test_pieces_that_do_not_belong_together_are_refused(home: Home) -> None:
    made = make(home, {"a.jsonl": [[Record(1, turns=(rated(),))]]})
    other = make(
        Home(home.root / "other"), {"a.jsonl": [[Record(1, turns=(rated(),)), Record(2, turns=(rated(),))]]}
    )
    mixed = decide(other.converted, other.scored, rules=Rules(), home=other.home)
    target = home.artifacts / mixed.pieces[0].decisions.path
    target.parent.mkdir(parents=True)
    target.write_bytes((other.home.artifacts / mixed.pieces[0].decisions.path).read_bytes())
    staging = home.root / "staging"
    staging.mkdir()
    with pytest.raises(AssayError, match="2 decisions on 1 records"):
        build(made.converted, made.scored, mixed, home=home, staging=staging, exports=())


AWKWARD = [
    b'\xef\xbb\xbf{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\r',
    b"{torn\r",
    b"",
    b"\xff\xfe",
    b'{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "a"}]}  ',
    b'{"messages": 1}',
]


@pytest.mark.parametrize("packing", ["lines", "gzip", "cut gzip", "array"])
def test_quarantine_agrees_with_what_convert_found(home: Home, tmp_path: Path, packing: str) -> None:
    """The one test here that runs the stages before: their offsets must be what the originals lie at."""
    data = b"\n".join(AWKWARD)
    path = tmp_path / "input.jsonl"
    if packing == "array":
        path = tmp_path / "input.json"
        data = b"[" + b",\n ".join([AWKWARD[0][3:-1], b'{"messages": 1}', b"{torn}"])
    if "gzip" in packing:
        path = tmp_path / "input.jsonl.gz"
    path.write_bytes(
        data if "gzip" not in packing else gzip.compress(data)[: -12 if "cut" in packing else None]
    )
    converted = convert(take_inventory([str(path)], format="messages"), home=home)
    staging = tmp_path / "staging"
    staging.mkdir()
    filtered = decide(converted, None, rules=Rules(), home=home)
    exported = build(converted, None, filtered, home=home, staging=staging, exports=(), stop_after="convert")
    found = rows(staging / "quarantine.jsonl")
    assert len(found) == sum(converted.counts.quarantined.values()) > 1
    assert exported.files["decisions.parquet"].rows == converted.counts.read
    for row in found:
        original = row["original"].encode() if "original" in row else base64.b64decode(row["original_base64"])
        assert original
        assert data[row["offset"] : row["offset"] + len(original)] == original


def test_an_unknown_export_is_refused_with_the_choices() -> None:
    with pytest.raises(UserMistake) as caught:
        check_exports(["steerml"], HELPSTEER)
    assert "did you mean 'steerlm'?" in str(caught.value)
    assert all(name in str(caught.value) for name in EXPORTS)


def test_steerlm_is_refused_for_a_model_that_rates_none_of_its_attributes() -> None:
    with pytest.raises(UserMistake, match="--export messages"):
        check_exports(["messages", "steerlm"], ("reward",))
    check_exports(["messages"], ("reward",))
    check_exports(["messages", "steerlm"], ("helpfulness", "reward"))


def test_a_disk_that_is_full_is_named_whoever_writes(home: Home) -> None:
    """Past the size that a process may write, the system says EFBIG; on a full disk ENOSPC, alike."""
    records = [
        Record(line, (("user", "q" * 500), ("assistant", "a")), (rated(line / 7, 1, 1, 1, 1),))
        for line in range(1, 4000)
    ]
    made = make(home, {"a.jsonl": [records]}, attributes=HELPSTEER)
    filtered = decide(made.converted, made.scored, rules=Rules(), home=home)

    def limited(limit: int, act: Callable[[], object]) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            act()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    for name, exports in (("lines", ("messages",)), ("tables", ())):
        staging = home.root / name
        staging.mkdir()
        with pytest.raises(
            AssayError, match=rf"{name}: .*(File too large|the disk is full)\. Make room"
        ) as caught:
            limited(
                1000,
                partial(
                    build,
                    made.converted,
                    made.scored,
                    filtered,
                    home=home,
                    staging=staging,
                    exports=exports,
                ),
            )
        assert caught.value.exit_code == 1
    rules = parse_rules(["helpfulness > 1"], attributes=HELPSTEER)
    with pytest.raises(AssayError, match=r"File too large|the disk is full"):
        limited(100, partial(decide, made.converted, made.scored, rules=rules, home=home))
    assert not list(home.artifacts.rglob("*.tmp"))


@pytest.mark.parametrize("limit", [10, 100, 1000, 5000, 10_000, 20_000, 50_000])
def test_a_table_that_meets_the_end_of_the_disk_anywhere_says_so(tmp_path: Path, limit: int) -> None:
    table = pl.DataFrame({"x": np.random.default_rng(0).normal(size=10_000)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(AssayError, match="Make room"), full_disk_named(tmp_path):  # noqa: PT012
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            table.lazy().sink_parquet(tmp_path / "table.parquet", row_group_size=1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_other_faults_of_writing_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), full_disk_named(tmp_path):
        (tmp_path / "no" / "such").write_bytes(b"")
    with pytest.raises(pl.exceptions.ColumnNotFoundError), full_disk_named(tmp_path):
        pl.DataFrame({"x": [1]}).select("y")
