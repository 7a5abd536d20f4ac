from __future__ import annotations

import gzip
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from converting import PAIR_LINE, Outcome, converted_file, converted_paths, line, said, steerlm_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from stages import convert, take_inventory

from assay.core.digests import digest_of_bytes
from assay.core.errors import AssayError, InputFault
from assay.core.progress import Silent
from assay.core.schema import Message, turn_keys
from assay.read import convert as convert_module
from assay.read.sources import RawRecord, RawRecords, read_originals
from assay.storage.home import Home
from assay.storage.manifests import to_json

DATA = os.environ.get("ASSAY_TEST_DATA")

needs_data = pytest.mark.skipif(DATA is None, reason="ASSAY_TEST_DATA names no folder of real data")


class Listener(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def artifacts(home: Home) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in home.artifacts.rglob("*") if path.is_file()}


def test_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    outcome = converted_file(tmp_path, PAIR_LINE)
    (piece,) = outcome.converted.pieces
    home = Home(tmp_path / "home")
    assert dict(pl.read_parquet_schema(home.artifacts / piece.records.path)) == {
        "row": pl.UInt32,
        "line": pl.UInt64,
        "part": pl.UInt32,
        "offset": pl.UInt64,
        "length": pl.UInt64,
        "outcome": pl.String,
        "reason": pl.String,
        "messages": pl.String,
        "labels": pl.String,
        "prompt_key": pl.Binary,
        "rest": pl.String,
        "roles": pl.String,
        "nemo_prompt": pl.String,
        "tools": pl.String,
        "shown": pl.String,
    }
    assert dict(pl.read_parquet_schema(home.artifacts / piece.turns.path)) == {
        "row": pl.UInt32,
        "turn": pl.UInt32,
        "key": pl.Binary,
        "text_bytes": pl.UInt32,
        "prompt_key": pl.Binary,
        "given": pl.String,
    }


def test_a_bad_line_is_quarantined_with_its_place_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Fault 27."""
    bad = [
        b"oops",
        b'{"messages": [',
        b'{"messages": "\xff"}',
        b'{"x": "\xc3"}',
        b"[1]",
        b"12",
        b'{"a": nan}',
    ]
    data = b"".join(each + b"\n" + PAIR_LINE + b"\n" for each in bad)
    outcome = converted_file(tmp_path, data)
    quarantined = [record for record in outcome.records if record["outcome"] == "quarantined"]
    assert [record["line"] for record in quarantined] == list(range(1, 14, 2))
    assert [record["reason"].partition(":")[0] for record in quarantined] == [
        "not_json",
        "not_json",
        "not_utf8",
        "not_utf8",
        "not_an_object",
        "not_an_object",
        "not_json",
    ]
    assert quarantined[2]["reason"] == "not_utf8: invalid start byte at byte 14 of the line"
    assert {record["messages"] for record in quarantined} == {None}
    spans = [(record["offset"], record["length"]) for record in quarantined]
    assert list(read_originals(str(tmp_path / "rows.jsonl"), spans)) == bad
    assert outcome.converted.counts.ok == len(bad)


def test_every_record_has_one_outcome_and_the_counts_say_so(tmp_path: Path) -> None:
    data = PAIR_LINE + b'\n{"messages": []}\noops\n\n{"messages": [{"role": "user", "content": "x"}]}\n'
    outcome = converted_file(tmp_path, data)
    counts = outcome.converted.counts
    assert counts.read == len(outcome.records) == 4
    assert (counts.ok, counts.dropped, counts.quarantined) == (
        1,
        {"no_assistant_turn": 1, "no_messages": 1},
        {"not_json": 1},
    )
    assert outcome.converted.lines == 5


def test_strict_stops_at_the_first_bad_record_and_says_where(tmp_path: Path) -> None:
    """Fault 27."""
    path = tmp_path / "rows.jsonl"
    data = PAIR_LINE + b"\n\noops\n{"
    with pytest.raises(InputFault, match=rf"^{path}:3: not_json: "):
        converted_file(tmp_path, data, strict=True)
    converted_file(tmp_path, data)
    with pytest.raises(InputFault, match=rf"^{path}:3: not_json: "):
        converted_file(tmp_path, data, strict=True)
    # A record that is dropped is no fault.
    assert converted_file(tmp_path, b'{"messages": []}', name="b.jsonl", strict=True).records


def test_a_long_line_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    """Fault 29."""
    long = line("x" * 5000, "y")
    outcome = converted_file(tmp_path, PAIR_LINE + b"\n" + long + b"\n" + PAIR_LINE, max_record_bytes=4096)
    assert [record["reason"] for record in outcome.records] == [
        None,
        f"line_too_long: {len(long)} bytes; at most 4096 are held",
        None,
    ]
    assert outcome.records[1]["length"] == len(long)


def test_an_unknown_schema_names_the_nearest_format_and_the_missing_field(tmp_path: Path) -> None:
    """Fault 32."""
    rows = [{"instruction": "x", "result": "y"}, {"chosen": "x"}, {"message": []}, {}]
    outcome = converted_file(tmp_path, b"\n".join(json.dumps(row).encode() for row in rows))
    reasons = [record["reason"] for record in outcome.records]
    assert reasons[:3] == [
        "unknown_schema: 'response' is missing for the nearest format, instruction; the row has "
        "'instruction', 'result'; to read it, try --map 'result=response'",
        "unknown_schema: 'rejected' is missing for the nearest format, preference; the row has 'chosen'",
        "unknown_schema: 'messages' is missing for the nearest format, messages; the row has 'message'",
    ]
    assert reasons[3].endswith("the row has no field")


def test_another_format_in_the_file_is_named(tmp_path: Path) -> None:
    """Fault 32."""
    other = b'{"instruction": "x", "output": "y"}'
    outcome = converted_file(tmp_path, b"\n".join([PAIR_LINE, other, PAIR_LINE]), format="messages")
    assert [record["reason"] for record in outcome.records] == [
        None,
        "mixed_formats: 'messages' is missing: a row of instruction in a file of messages",
        None,
    ]


def test_emoji_right_to_left_and_nul_round_trip(tmp_path: Path) -> None:
    """Fault 36."""
    text = "👩‍👩‍👧 שלום \u202e \x00 \u2028 \ufeff e\u0301 \U0010ffff"
    data = json.dumps(
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
    )
    for name, written in (("a.jsonl", data), ("b.jsonl", json.dumps(json.loads(data), ensure_ascii=True))):
        (record,) = converted_file(tmp_path, written.encode(), name=name).records
        assert said(record) == [("user", text), ("assistant", text)]


@pytest.mark.parametrize(
    "place", ['"x": "{}"', '"messages": [{{"role": "user", "content": "{}"}}]', '"{}": 1']
)
@pytest.mark.parametrize("half", ["\\ud83d", "a\\uDE00b", "\\ud83d\\ud83d", "\\ud83dx\\ude00"])
def test_half_a_surrogate_pair_is_quarantined(tmp_path: Path, place: str, half: str) -> None:
    """Fault 36."""
    data = ('{"messages": [], ' + place.format(half) + "}").encode()
    (record,) = converted_file(tmp_path, data, format="messages").records
    assert record["reason"].startswith("lone_surrogate: ")


def test_equal_ids_and_equal_texts_both_come_out(tmp_path: Path) -> None:
    """Fault 37."""
    outcome = converted_file(tmp_path, b"\n".join([line("q", "a", id=1)] * 2))
    assert [record["line"] for record in outcome.records] == [1, 2]
    assert [turn["row"] for turn in outcome.turns] == [0, 1]
    assert outcome.turns[0]["key"] == outcome.turns[1]["key"]


def test_what_is_carried_along_is_exact_and_the_last_of_equal_keys_wins(tmp_path: Path) -> None:
    """Fault 38."""
    number, deep = b"123456789012345678901234567890", b'{"b": [1.0,  2], "a": "\\u00e9 \xc3\xa9"}'
    rest = b'"id": ' + number + b', "score": 1.10e-400, "n": ' + deep
    data = (
        b'{"id": 1, "messages": [], '
        + rest
        + b', "messages": '
        + json.dumps(json.loads(PAIR_LINE)["messages"]).encode()
        + b"}"
    )
    (record,) = converted_file(tmp_path, data).records
    assert len(record["messages"]) == 2
    assert record["rest"].encode() == b'{"id":' + number + b',"score":1.10e-400,"n":' + deep + b"}"


def test_what_is_carried_along_is_one_line_even_from_a_pretty_array(tmp_path: Path) -> None:
    data = json.dumps([json.loads(line("q", "a", meta={"deep": [1, {"x": " y "}]}))], indent=2).encode()
    (record,) = converted_file(tmp_path, data, name="a.json").records
    assert record["rest"] == '{"meta":{"deep":[1,{"x":" y "}]}}'


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.sampled_from("abé")),
        min_size=1,
        max_size=8,
    )
)
def test_turn_keys_are_those_of_the_schema(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, str]]
) -> None:
    wire = [{"role": role, "content": content} for role, content in turns]
    outcome = converted_file(tmp_path_factory.mktemp("keys"), json.dumps({"messages": wire}).encode())
    expected = turn_keys([Message(*turn) for turn in turns])
    assert [(turn["key"], turn["text_bytes"]) for turn in outcome.turns] == [turn[:2] for turn in expected]
    assert outcome.records[0]["prompt_key"] == (expected[-1].prompt_key if expected else None)
    assert [turn["turn"] for turn in outcome.turns] == list(range(len(expected)))


def prompt_keys(folder: Path, *conversations: tuple[str, ...]) -> list[bytes]:
    data = b"\n".join(line(*contents) for contents in conversations)
    return [record["prompt_key"] for record in converted_file(folder, data).records]


def test_answers_to_one_prompt_share_its_key(tmp_path: Path) -> None:
    one, other, longer, elsewhere, trailing = prompt_keys(
        tmp_path, ("q", "a"), ("q", "b"), ("q", "a", "r", "a"), ("r", "a"), ("q", "a", "thanks")
    )
    assert one == other == trailing
    assert len({one, longer, elsewhere}) == 3


def test_records_that_are_not_ok_have_no_turns_and_no_prompt(tmp_path: Path) -> None:
    empty_later = b'{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": ""}]}'
    outcome = converted_file(tmp_path, empty_later + b'\n{"messages": []}')
    assert outcome.turns == []
    assert {record["prompt_key"] for record in outcome.records} == {None}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["ok", "bad", "empty", "blank"]), max_size=20),
    shard_bytes=st.integers(1, 400),
    piece_records=st.integers(1, 5),
)
def test_shards_and_pieces_of_any_size_hold_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], shard_bytes: int, piece_records: int
) -> None:
    folder = tmp_path_factory.mktemp("same")
    lines = {"ok": PAIR_LINE, "bad": b"{oops", "empty": b'{"messages": []}', "blank": b""}
    data = b"\n".join(lines[kind] for kind in kinds)
    whole = converted_file(folder, data, format="messages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "PIECE_RECORDS", piece_records)
        cut = converted_file(folder, data, format="messages", shard_bytes=shard_bytes)

    def seen(outcome: Outcome) -> list[dict[str, object]]:
        return [{key: value for key, value in record.items() if key != "row"} for record in outcome.records]

    assert seen(cut) == seen(whole)
    assert [turn["key"] for turn in cut.turns] == [turn["key"] for turn in whole.turns]
    assert cut.converted.counts == whole.converted.counts
    assert cut.converted.lines == whole.converted.lines
    assert all(piece.counts.read <= piece_records for piece in cut.converted.pieces)


def test_rows_count_from_0_in_every_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "PIECE_RECORDS", 2)
    outcome = converted_file(tmp_path, b"\n".join([PAIR_LINE] * 5))
    assert [record["row"] for record in outcome.records] == [0, 1, 0, 1, 0]
    assert [turn["row"] for turn in outcome.turns] == [0, 1, 0, 1, 0]
    assert [piece.turn_count for piece in outcome.converted.pieces] == [2, 2, 1]


def test_a_piece_is_closed_at_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "PIECE_TEXT_BYTES", 1000)
    outcome = converted_file(tmp_path, b"\n".join([line("q" * 450, "a" * 50)] * 5))
    assert [piece.counts.ok for piece in outcome.converted.pieces] == [2, 2, 1]


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 7, 100])
def test_a_limit_takes_the_first_records_of_all_shards_and_files(tmp_path: Path, limit: int) -> None:
    paths = []
    for name in ("a.jsonl", "b.jsonl"):
        rows = [line(f"{name} {number}", "a") for number in range(4)]
        (tmp_path / name).write_bytes(b"\n".join(rows))
        paths.append(str(tmp_path / name))
    every = converted_paths(tmp_path, *paths)
    some = converted_paths(tmp_path, *paths, limit=limit, shard_bytes=150)
    assert [said(record) for record in some.records] == [said(record) for record in every.records][:limit]
    assert some.converted.counts.read == min(limit, 8)
    assert some.converted.lines == min(limit, 8)


def test_equal_input_gives_equal_manifests_and_no_work(tmp_path: Path) -> None:
    first = converted_file(tmp_path, PAIR_LINE + b"\noops")
    before = artifacts(Home(tmp_path / "home"))
    second = converted_file(tmp_path, PAIR_LINE + b"\noops")
    assert second.converted == first.converted
    assert artifacts(Home(tmp_path / "home")) == before
    assert msgspec.json.decode(to_json(first.converted), type=type(first.converted)) == first.converted


def test_a_new_home_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([PAIR_LINE, b"oops", line("q", "a", x=1)]))
    inventory = take_inventory([str(path)])
    assert convert(inventory, home=Home(tmp_path / "h1")) == convert(inventory, home=Home(tmp_path / "h2"))


def test_adding_a_file_converts_only_that_file(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(line(name, "a"))
    one = converted_paths(tmp_path, str(tmp_path / "b.jsonl"))
    before = artifacts(Home(tmp_path / "home"))
    both = converted_paths(tmp_path, str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    assert before.items() < artifacts(Home(tmp_path / "home")).items()
    assert both.converted.pieces[1] == one.converted.pieces[0]
    assert both.converted.digest != one.converted.digest


def test_other_content_under_the_same_name_is_converted_anew(tmp_path: Path) -> None:
    converted_file(tmp_path, line("q", "old"))
    (record,) = converted_file(tmp_path, line("q", "new")).records
    assert said(record)[1][1] == "new"


def flip(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


@pytest.mark.parametrize("damage", [flip, lambda data: data[:-1], lambda data: b"", None])
@pytest.mark.parametrize("which", ["0000.records.parquet", "0000.turns.parquet", "manifest.json"])
def test_a_damaged_artifact_is_made_again_with_a_warning(tmp_path: Path, which: str, damage: object) -> None:
    first = converted_file(tmp_path, PAIR_LINE)
    home = Home(tmp_path / "home")
    (path,) = home.artifacts.rglob(which)
    good = path.read_bytes()
    if callable(damage):
        path.write_bytes(damage(good))
    else:
        path.unlink()
    listener = Listener()
    second = converted_file(tmp_path, PAIR_LINE, progress=listener)
    assert second == first
    assert path.read_bytes() == good
    if damage is not None or which != "manifest.json":
        (warning,) = listener.lines
        assert warning.startswith(f"{tmp_path / 'rows.jsonl'}: ")
        assert warning.endswith("converting it again.")


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    converted_file(tmp_path, PAIR_LINE)
    home = Home(tmp_path / "home")
    (manifest,) = home.artifacts.rglob("manifest.json")
    manifest.unlink()
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    left = manifest.with_name(f".0000.records.parquet.{socket.gethostname()}-{dead.stdout.strip()}.tmp")
    alive = manifest.with_name(f".0000.records.parquet.{socket.gethostname()}-{os.getppid()}.tmp")
    left.touch()
    alive.touch()
    converted_file(tmp_path, PAIR_LINE)
    assert not left.exists()
    assert alive.exists()


def test_a_file_that_changed_since_the_inventory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(PAIR_LINE)
    inventory = take_inventory([str(path)])
    path.write_bytes(PAIR_LINE * 2)
    with pytest.raises(
        InputFault, match=rf"^{path}: was changed while it was read \(148 bytes then, 296 now"
    ):
        convert(inventory, home=Home(tmp_path / "home"))
    path.unlink()
    with pytest.raises(InputFault, match=rf"^{path}: can no longer be read"):
        convert(inventory, home=Home(tmp_path / "home"))


def test_a_full_disk_names_the_file_and_leaves_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(line(f"{number:0999d}", os.urandom(999).hex()) for number in range(90)))
    inventory = take_inventory([str(path)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(AssayError, match=r"records\.parquet: File too large\. Make room"):
            convert(inventory, home=Home(tmp_path / "home"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [each for each in (tmp_path / "home").rglob("*") if each.is_file()]


def test_names_with_the_characters_of_a_glob_are_just_names(tmp_path: Path) -> None:
    folder = tmp_path / "[a]*?"
    folder.mkdir()
    outcome = converted_file(folder, PAIR_LINE, name="[b].jsonl")
    assert len(steerlm_rows(folder, outcome.converted)) == outcome.converted.counts.ok == 1


@pytest.fixture
def few_open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 32, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
@pytest.mark.usefixtures("few_open_files")
def test_many_small_files_need_few_open_files(tmp_path: Path) -> None:
    """Fault 42; 10,000 files take half a minute, so here are 400 and a limit of 32 open files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number:04d}.jsonl").write_bytes(line(f"q{number}", "a"))
    outcome = converted_paths(tmp_path, str(folder))
    assert [said(record)[0][1] for record in outcome.records] == [f"q{number}" for number in range(400)]


@pytest.mark.slow
def test_one_huge_file_needs_bounded_memory(tmp_path: Path) -> None:
    """Fault 42: 400 MB of input with less than 300 MB of address space to spare for data."""
    path = tmp_path / "a.jsonl"
    rows = (line("question " * 300, "answer " * 300) + b"\n") * 200
    with path.open("wb") as file:
        for _ in range(400_000_000 // len(rows)):
            file.write(rows)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from assay.read.convert import ToConvert, convert\n"
        "from assay.storage.home import Home\n"
        "from assay.read.inventory import Inputs, take_inventory\n"
        "from assay.storage.stage import RunContext\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "context = RunContext(Home(Path(sys.argv[2])))\n"
        "convert(ToConvert(take_inventory(Inputs((sys.argv[1],)), context)), context)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    grown = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path / "home")],
        capture_output=True,
        text=True,
        check=True,
    )
    path.unlink()
    assert int(grown.stdout) < 300_000


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    class Counting(Silent):
        total = done = 0

        def begin(self, stage: str, total: int | None, unit: str) -> None:
            assert (stage, unit) == ("convert", "bytes")
            self.total = total or 0

        def advance(self, count: int = 1, **details: object) -> None:
            self.done += count

    progress = Counting()
    converted_file(tmp_path, b"\n".join([PAIR_LINE] * 9), shard_bytes=200, progress=progress)
    assert progress.total == progress.done == 9 * len(PAIR_LINE) + 8


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_is_changed_after_its_inventory_is_not_kept_under_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Even one that keeps its size; what it held before is found again when it is put back."""
    path = tmp_path / "rows.jsonl"
    original, other = PAIR_LINE, PAIR_LINE.replace(b"mill", b"barn")
    path.write_bytes(original)
    inventory = take_inventory([str(path)])
    real = convert_module._readings

    def rewrite(data: bytes) -> None:
        path.write_bytes(data)
        # A file system's clock may tick more slowly than this test runs.
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1_000_000))

    def changing(*given: Any, **options: Any) -> Iterator[Any]:
        yield from real(*given, **options)
        rewrite(original)

    rewrite(other)
    if when == "while":
        inventory = take_inventory([str(path)])
        monkeypatch.setattr("assay.read.convert._readings", changing)
    with pytest.raises(InputFault, match=r"rows\.jsonl: was changed while it was read"):
        convert(inventory, home=Home(tmp_path / "home"))
    monkeypatch.undo()
    rewrite(original)
    assert "mill" in str(converted_paths(tmp_path, str(path)).records[0]["messages"])


def test_no_file_is_called_incomplete_of_which_the_quarantine_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: RawRecords, *_: Any) -> RawRecord:
        self.why_incomplete = "is cut short: nobody says where"
        return RawRecord(2, 0, 0, PAIR_LINE)

    data = gzip.compress(PAIR_LINE + b"\n" + PAIR_LINE)[:-9]
    monkeypatch.setattr(RawRecords, "_cut_record", silent)
    with pytest.raises(AssayError, match=r"a\.jsonl\.gz is cut short: .*no record in quarantine says so"):
        converted_file(tmp_path, data, name="a.jsonl.gz")
    monkeypatch.undo()
    # Elsewhere: what was converted is kept.
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    outcome = converted_file(folder, data, name="a.jsonl.gz", limit=1)
    assert (outcome.converted.complete, outcome.converted.shortfalls) == (True, ())
    outcome = converted_file(folder, data, name="a.jsonl.gz")
    assert [one.quarantined for one in outcome.converted.shortfalls] == [1]


def test_the_digest_is_that_of_the_manifest(tmp_path: Path) -> None:
    converted = converted_file(tmp_path, PAIR_LINE).converted
    assert converted.digest == digest_of_bytes(to_json(replace(converted, digest="")))


def test_roles_are_a_letter_a_message_and_null_where_there_are_none(tmp_path: Path) -> None:
    rows: list[object] = [
        {"messages": [{"role": role, "content": "x"} for role in ("system", "user", "tool", "assistant")]},
        {"messages": [{"role": "user", "content": "x"}]},
        {"messages": []},
        {"messages": [{"role": "user", "content": ""}]},
    ]
    outcome = converted_file(tmp_path, b"\n".join(json.dumps(row).encode() for row in rows))
    assert [record["roles"] for record in outcome.records] == ["suta", "u", None, None]


def test_converted_rows_are_the_ok_records_that_steerlm_can_express(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q1", "response": "a", "helpfulness": 3},
        {"prompt": "", "response": "a"},
        {"prompt": [{"role": "user", "content": "q"}, {"role": "system", "content": "s"}], "response": "a"},
        {"system": "s", "prompt": "q2", "response": "a"},
    ]
    outcome = converted_file(tmp_path, b"\n".join(json.dumps(row).encode() for row in rows))
    assert [record["roles"] for record in outcome.records] == ["ua", None, "usa", "sua"]
    written = steerlm_rows(tmp_path, outcome.converted)
    assert [row["conversations"][0]["value"] for row in written] == ["q1", "q2"]
    assert written[0]["conversations"][1] == {"value": "a", "from": "Assistant", "label": "helpfulness:3"}
    assert written[1]["system"] == "s"


@pytest.fixture(scope="session")
def sharegpt() -> Path:
    """Where the benchmarks keep it too."""
    assert DATA is not None
    folder = Path(tempfile.gettempdir()) / "assay-benchmark-sharegpt"
    if not (folder / "sharegpt.truncated.json").exists():
        script = str(Path(DATA) / "get_sharegpt.py")
        fetched = subprocess.run([sys.executable, script, str(folder)], capture_output=True, text=True)
        if fetched.returncode:
            pytest.skip(f"ShareGPT cannot be fetched: {fetched.stderr[-200:]}")
    return folder


@pytest.mark.slow
@needs_data
def test_sharegpts_oddities_are_all_accounted_for(tmp_path: Path, sharegpt: Path) -> None:
    outcome = converted_paths(tmp_path, str(sharegpt / "sharegpt.jsonl"))
    counts = outcome.converted.counts
    assert counts.read == outcome.converted.lines == 17_671
    assert counts.dropped["no_messages"] == 126
    assert set(counts.quarantined) == {"empty_content"}
    with (sharegpt / "sharegpt.jsonl").open("rb") as file:
        rows = [json.loads(each)["conversations"] for each in file]
    empty = [
        number for number, turns in enumerate(rows, 1) if not all(turn["value"].strip() for turn in turns)
    ]
    quarantined = [record["line"] for record in outcome.records if record["outcome"] == "quarantined"]
    assert quarantined == empty
    first_roles = Counter(record["messages"][0]["role"] for record in outcome.records if record["messages"])
    assert first_roles["assistant"] > 6_000
    ok = [record for record in outcome.records if record["outcome"] == "ok"]
    assert all(
        [message["content"] for message in record["messages"]]
        == [turn["value"] for turn in rows[record["line"] - 1]]
        for record in ok
    )


@pytest.mark.slow
@needs_data
def test_the_corrupt_original_of_sharegpt_is_read_up_to_its_cut(tmp_path: Path, sharegpt: Path) -> None:
    """Fault 31, met in the wild."""
    outcome = converted_paths(tmp_path, str(sharegpt / "sharegpt.truncated.json"))
    assert not outcome.converted.complete
    assert outcome.converted.counts.quarantined["cut_short"] == 1
    assert outcome.records[-1]["reason"].startswith("cut_short: ")
    assert len(outcome.records) == 17_672


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", ["helpful", "harmless"])
def test_hh_pairs_are_two_records_each(tmp_path: Path, name: str) -> None:
    assert DATA is not None
    path = Path(DATA) / "hh-rlhf" / f"{name}-base-test.jsonl.gz"
    outcome = converted_paths(tmp_path, str(path))
    assert outcome.converted.counts.read == 2 * outcome.converted.lines
    assert set(outcome.converted.counts.quarantined) == {"empty_content"}
    assert outcome.converted.inputs[0].format == "preference"


@needs_data
def test_rm_bench_rows_are_three_answers_a_side(tmp_path: Path) -> None:
    assert DATA is not None
    outcome = converted_paths(tmp_path, str(Path(DATA) / "rm-bench" / "chat_filtered.json.gz"))
    assert (outcome.converted.lines, outcome.converted.counts.ok) == (129, 774)
    sides = Counter(json.loads(record["rest"])["assay_side"] for record in outcome.records)
    assert sides == {"chosen": 387, "rejected": 387}
