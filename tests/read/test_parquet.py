"""Parquet files that are damaged: no row is lost without a word, and nothing else is harmed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Generator
from pathlib import Path

import polars as pl
import psutil
import pytest
from converting import converted_paths
from flipping import chats, flip, sweep
from running_process import running
from stages import take_inventory

from assay.core.errors import AssayError, UserMistake
from assay.export.first_rows import first_rows
from assay.export.quarantine import quarantine_lines
from assay.read import parquet_table, table_decoder, tables
from assay.read.damage import DamagedTable
from assay.read.parquet_footer import Column, Group, check_sums, read_groups
from assay.read.sources import read_originals
from assay.read.tables import Lost, decoder_kept, read_rows
from assay.storage.home import Home


def groups_of(path: Path) -> tuple[Group, ...]:
    with path.open("rb") as file:
        return read_groups(file)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """20,000 rows in ten groups; a page of the sixth states another number of values.

    polars 2.1 panics there, and its ``collect_batches`` then gives 8,192 rows as though they were all.
    """
    rows = range(20_000)
    frame = pl.DataFrame(
        {
            "prompt": [f"q{n % 7}" if n % 3 else None for n in rows],
            "response": [f"a{n % 5}" for n in rows],
        }
    )
    path = tmp_path / "rows.parquet"
    frame.write_parquet(path, row_group_size=2000)
    flip(path, path.read_bytes(), 8 * (groups_of(path)[5].columns[1].offset + 55) + 4)
    return path


@pytest.mark.slow
def test_of_a_group_that_cannot_be_read_every_row_is_in_quarantine(
    damaged: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = converted_paths(tmp_path, str(damaged))
    assert [record["line"] for record in outcome.records] == list(range(1, 20_001))
    lost = [
        record for record in outcome.records if (record["reason"] or "").startswith("damaged_row_group: ")
    ]
    assert [record["line"] for record in lost] == list(range(10_001, 12_001))
    group = groups_of(damaged)[5]
    assert {(record["offset"], record["length"]) for record in lost} == {(group.offset, group.length)}
    assert outcome.converted.lines == 20_000
    assert not outcome.converted.complete
    (shortfall,) = outcome.converted.shortfalls
    assert str(shortfall).startswith(f"{damaged} is damaged: row group 6 of 10 cannot be read (")
    assert str(shortfall).endswith("; 2,000 records of it are in quarantine")
    out, err = capfd.readouterr()
    assert out + err == "", "polars' panic is on the console"

    records = pl.DataFrame(lost[:2])
    entries = list(quarantine_lines(outcome.converted.inputs[0], records, Home(tmp_path / "home")))
    assert json.loads(entries[1]) == {
        "file": str(damaged),
        "line": 10_002,
        "part": 0,
        "offset": group.offset,
        "length": group.length,
        "reason": lost[1]["reason"],
    }


@pytest.mark.slow
def test_originals_before_and_behind_a_damaged_group_are_found(damaged: Path) -> None:
    wanted = [0, 9_999, 12_000, 19_999]
    found = list(read_originals(str(damaged), [(row, 1) for row in wanted]))
    assert [json.loads(each)["response"] for each in found] == [f"a{row % 5}" for row in wanted]


@pytest.mark.slow
def test_the_format_is_recognised_by_the_first_rows_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    chats(400, nested=False).write_parquet(path, row_group_size=200)
    data = bytearray(path.read_bytes())
    group = groups_of(path)[0]
    data[group.offset : group.offset + group.length] = bytes(group.length)
    path.write_bytes(data)
    outcome = converted_paths(tmp_path, str(path))
    assert outcome.converted.inputs[0].format == "instruction"
    assert outcome.converted.counts.quarantined["damaged_row_group"] == 200
    assert outcome.converted.counts.ok > 150


@pytest.mark.slow
def test_of_rows_that_are_lost_no_other_rows_are_shown(tmp_path: Path) -> None:
    """Where nothing could be used the first rows are shown; the offset of a lost one is not a row."""
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"text": [f"row {n}" for n in range(40)]}).write_parquet(path, row_group_size=2)
    data = bytearray(path.read_bytes())
    group = groups_of(path)[0]
    data[group.offset : group.offset + group.length] = bytes(group.length)
    path.write_bytes(data)
    outcome = converted_paths(tmp_path, str(path))
    shown = list(first_rows(outcome.converted, None, Home(tmp_path / "home")))
    assert sorted(shown) == [
        f"{path}:1 (damaged_row_group): (cannot be read)",
        f"{path}:2 (damaged_row_group): (cannot be read)",
        f'{path}:3 (unknown_schema): {{"text":"row 2"}}',
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("nested", "compression"), [(False, "zstd"), (True, "uncompressed")])
def test_no_flipped_bit_loses_a_row_without_a_word(
    nested: bool, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A few here; ``python tests/flipping.py 1000`` flips more."""
    found = sweep(chats(300, nested=nested), 40, compression=compression, row_group_size=100)
    assert found["quarantined"] > 0
    assert found["refused"] > 0
    out, err = capfd.readouterr()
    assert out + err == ""


def altered_footer(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    at = data.rindex(old)
    path.write_bytes(data[:at] + new + data[at + len(old) :])


def varint(number: int) -> bytes:
    """A number as Thrift's compact protocol has it."""
    zigzag = number << 1
    found = b""
    while zigzag > 127:
        found += bytes([zigzag & 127 | 128])
        zigzag >>= 7
    return found + bytes([zigzag])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"PARE", "it is encrypted"),
        (b"PAR2", "does not begin and end as a Parquet file does"),
        (b"\xff\xff\xff\x7fPAR1", "its footer is longer than the file"),
        (b"\x09\0\0\0PAR1", "its footer cannot be understood|does not add up|is cut short"),
    ],
)
def test_a_footer_that_is_none_is_refused(tmp_path: Path, tail: bytes, said: str) -> None:
    path = tmp_path / "rows.parquet"
    chats(30, nested=False).write_parquet(path)
    path.write_bytes(path.read_bytes()[: -len(tail)] + tail)
    with pytest.raises(UserMistake, match=f"rows.parquet: not a Parquet file that can be read: .*({said})"):
        take_inventory([str(path)])


def test_a_footer_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """polars believes whichever number it meets first."""
    path = tmp_path / "rows.parquet"
    chats(300, nested=False).write_parquet(path, row_group_size=100)
    # The file's number of rows is the only 300 in the footer.
    altered_footer(path, varint(300), varint(172))
    with pytest.raises(UserMistake, match="its footer states 172 rows, and 300 in its row groups"):
        take_inventory([str(path)])


def test_counts_of_values_and_bytes_are_held_against_the_footer() -> None:
    """Nulls in the wrong places leave the number of rows as it is, and move texts to other rows."""
    frame = pl.DataFrame(
        {
            "prompt": ["a", None, "bcd"],
            "messages": [[{"role": "x", "n": 1}], [], [{"role": None, "n": 2}, {"role": "yz", "n": None}]],
        }
    )

    def check(*stated: tuple[int | None, int | None]) -> None:
        columns = tuple(Column(name, 4, 1, *each) for name, each in zip("abc", stated, strict=True))
        parquet_table._check_counts(frame, (Group(3, 4, 3, 3, columns),))

    check((2, 4), (2, 3), (2, None))
    check((None, None), (None, None), (None, None))
    with pytest.raises(DamagedTable, match="column a holds 2 values, where the footer states 3"):
        check((3, 4), (2, 3), (2, None))
    with pytest.raises(DamagedTable, match="column b holds 3 text bytes, where the footer states 5"):
        check((2, 4), (2, 5), (2, None))
    with pytest.raises(DamagedTable, match="column c holds 2 values"):
        check((2, 4), (2, 3), (1, None))


@pytest.mark.parametrize("check", ["check_sums", "_check_counts"])
def test_what_is_decoded_is_checked_before_any_row_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    def refuse(*_: object) -> None:
        raise DamagedTable("it is not so")

    path = tmp_path / "rows.parquet"
    chats(30, nested=False).write_parquet(path)
    decoder = table_decoder._Decoder()
    monkeypatch.setattr(table_decoder, "_limit_itself", lambda size: None)
    monkeypatch.setattr(parquet_table, check, refuse)
    assert decoder.answered({"file": str(path)})[0] == b"G"
    assert decoder.answered({"first": 0, "last": 0}) == (b"F", b"it is not so")
    assert decoder.answered({"more": True}) == (b"E", b"")
    monkeypatch.undo()
    path.unlink()
    assert decoder.answered({"file": str(path)}) == (b"O", b"2")


def test_checksums_of_pages_are_checked_where_there_are_any(tmp_path: Path) -> None:
    def page(data: bytes, *, summed: bool) -> bytes:
        checksum = zlib.crc32(data)
        signed = checksum - (1 << 32) if checksum >> 31 else checksum
        stated = b"\x15" + _signed(signed) if summed else b""
        # Field 1, the kind of page; 2 and 3, its sizes; 4, the checksum.
        return b"\x15\x00\x15" + varint(len(data)) + b"\x15" + varint(len(data)) + stated + b"\x00" + data

    def check(content: bytes) -> None:
        path = tmp_path / "pages"
        path.write_bytes(b"PAR1" + content)
        with path.open("rb") as file:
            check_sums(file, Group(1, 4, len(content), 1, (Column("a", 4, len(content), None, None),)))

    for summed in (True, False):
        check(page(b"texts", summed=summed) + page(b"more", summed=summed))
    check(page(b"texts", summed=False).replace(b"texts", b"tests"))
    with pytest.raises(DamagedTable, match="a page of column a does not match its checksum"):
        check(page(b"texts", summed=True) + page(b"more", summed=True).replace(b"more", b"mere"))


def _signed(number: int) -> bytes:
    zigzag = (number << 1) ^ (number >> 63)
    found = b""
    while zigzag > 127:
        found += bytes([zigzag & 127 | 128])
        zigzag >>= 7
    return found + bytes([zigzag])


DIES_IN_THE_SECOND_GROUP = """
    import os, signal
    from assay.read import table_decoder
    real = table_decoder._Decoder._decode
    def decode(self, first, last):
        if first <= 1 <= last:
            os.kill(os.getpid(), signal.{})
        real(self, first, last)
    table_decoder._Decoder._decode = decode
    table_decoder.main()
"""


def dying(monkeypatch: pytest.MonkeyPatch, signal_name: str) -> None:
    script = textwrap.dedent(DIES_IN_THE_SECOND_GROUP.format(signal_name))
    monkeypatch.setattr(tables, "_COMMAND", [sys.executable, "-P", "-c", script])


@pytest.mark.slow
def test_data_that_end_the_decoding_process_cost_their_group_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.parquet"
    chats(30, nested=False).write_parquet(path, row_group_size=10)
    dying(monkeypatch, "SIGABRT")
    found = [(first, len(rows) if isinstance(rows, list) else rows) for first, rows in read_rows(str(path))]
    group = groups_of(path)[1]
    why = "row group 2 of 3 cannot be read (decoding it ends in SIGABRT)"
    assert found == [(0, 10), (10, Lost(10, group.offset, group.length, why)), (20, 10)]


def test_a_decoding_process_that_is_killed_from_outside_says_nothing_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.parquet"
    chats(30, nested=False).write_parquet(path, row_group_size=10)
    dying(monkeypatch, "SIGKILL")
    with pytest.raises(AssayError, match=r"rows\.parquet: the process that decodes it was killed by SIGKILL"):
        list(read_rows(str(path)))


def test_one_process_decodes_one_file_after_the_other_and_is_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    chats(30, nested=False).write_parquet(path, row_group_size=10)
    before = set(psutil.Process().children())
    with decoder_kept():
        started = set()
        for _ in range(3):
            rows = read_rows(str(path))
            next(rows)
            started |= set(psutil.Process().children()) - before
            assert isinstance(rows, Generator)
            rows.close()
            assert sum(len(each) for _, each in read_rows(str(path)) if isinstance(each, list)) == 30
        assert len(started) == 1
        # Two at a time are two.
        both = [read_rows(str(path)), read_rows(str(path))]
        assert [len(list(pair)) for pair in zip(*both, strict=True)] == [2]
    assert set(psutil.Process().children()) - before == set()


def test_the_decoding_process_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    chats(30, nested=False).write_parquet(path)
    script = f"""
import os, signal, sys, time
from assay.read.tables import read_rows
rows = read_rows({str(path)!r})
next(rows)
print("ready", flush=True)
time.sleep(60)
"""
    with running([sys.executable, "-c", script], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        (decoder,) = psutil.Process(run.pid).children()
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    deadline = time.monotonic() + 20
    while decoder.is_running() and decoder.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


@pytest.mark.slow
def test_numbers_that_json_lacks_are_null_from_parquet_as_from_json_lines(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [
        {"messages": chat, "score": float("nan"), "all": [{"x": float("inf")}], "id": 1, "at": None},
        {"messages": chat, "score": 0.5, "all": [{"x": -float("inf")}, {"x": 1.0}], "id": 2, "at": "NaN"},
        {"messages": chat, "score": None, "all": [], "id": 3, "at": "x"},
    ]
    pl.DataFrame(rows, strict=False).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    of_parquet, of_lines = (
        converted_paths(tmp_path, str(tmp_path / f"a.{end}")) for end in ("parquet", "jsonl")
    )
    rests = [[json.loads(record["rest"]) for record in each.records] for each in (of_parquet, of_lines)]
    assert rests[0] == rests[1]
    assert [rest["score"] for rest in rests[0]] == [None, 0.5, None]
    assert of_parquet.converted.left_out == of_lines.converted.left_out == {"score": 1, "all": 2}
