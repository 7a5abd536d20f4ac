from __future__ import annotations

import gzip
import json
import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import zstandard
from converting import converted_file, line
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stages import take_inventory

from assay.core.errors import UserMistake
from assay.export.quarantine import quarantine_lines
from assay.read.sources import RawRecord, RawRecords, Source, read_originals, sniff
from assay.read.streams import CutShortError, stream
from assay.storage.home import Home

PAIR = line("Which way to the mill?", "Left at the bridge.")

CHECKED_ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(PAIR + b"\n")
#: A frame that states a byte more than its one block holds, which is stored as it is.
SIZED_ZSTD = (
    b"\x28\xb5\x2f\xfd\x20"
    + bytes([len(PAIR) + 2])
    + ((len(PAIR) + 1) << 3 | 1).to_bytes(3, "little")
    + PAIR
    + b"\n"
)
#: A frame with a window of 2 GiB and one block, stored as it is.
LONG_WINDOW = b"\x28\xb5\x2f\xfd\x00\xa8" + (len(PAIR) << 3 | 1).to_bytes(3, "little") + PAIR


def write(path: Path, data: bytes = PAIR + b"\n") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def write_results(folder: Path) -> str:
    """A folder as a run leaves it; the path of a file in it."""
    write(folder / "manifest.json", b'{"assay": "0.1.0", "files": {}}')
    return write(folder / "messages.jsonl")


def raw_records(path: str, **options: int) -> list[RawRecord]:
    return list(RawRecords(sniff(path), **options))


def test_files_come_in_the_order_given_and_globs_sorted(tmp_path: Path) -> None:
    last = write(tmp_path / "z.jsonl")
    second, first = write(tmp_path / "g2.jsonl"), write(tmp_path / "g1.jsonl")
    inventory = take_inventory([last, str(tmp_path / "g*.jsonl")])
    assert [file.path for file in inventory.files] == [last, first, second]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    (tmp_path / "link.jsonl").symlink_to(path)
    inventory = take_inventory([path, path, str(tmp_path), str(tmp_path / "*.jsonl")])
    assert [file.path for file in inventory.files] == [path]


def test_a_folder_is_its_files_of_known_endings_at_any_depth(tmp_path: Path) -> None:
    wanted = [
        write(tmp_path / name) for name in ("a.jsonl", "b/c.json", "d.ndjson", "e.jsonl.gz", "f.jsonl.zst")
    ]
    write(tmp_path / "notes.txt")
    write(tmp_path / ".hidden.jsonl")
    write(tmp_path / ".git/x.jsonl")
    assert {file.path for file in take_inventory([str(tmp_path)]).files} == set(wanted)


def test_a_relative_path_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in take_inventory(["a.jsonl"]).files] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.jsonl", "no such file"),
        ("*.nothing", "matches no file"),
        ("empty", "holds no file"),
        ("results", "holds the results of a run"),
        ("results/*.jsonl", "matches no file but results of runs: name the file in .*results that you mean"),
        ("pipe", r"pipe: cannot be read: it is a FIFO \(named pipe\), and only regular files are read\.$"),
        ("old.jsonl.bz2", "bzip2 is not read"),
        ("fake.parquet", "not a Parquet file"),
        ("torn.parquet", "not a Parquet file"),
    ],
)
def test_what_cannot_be_read_is_the_users_mistake(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "old.jsonl.bz2", b"BZh91AY")
    write(tmp_path / "fake.parquet", b"something else")
    write(tmp_path / "torn.parquet", b"PAR1 and then no more")
    write_results(tmp_path / "results")
    with pytest.raises(UserMistake, match=said):
        take_inventory([str(tmp_path / given)])


@pytest.mark.parametrize("where", ["", "*.jsonl", "pipe.jsonl"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, r"pipe\.jsonl: cannot be read: it is a FIFO"),
        (lambda path: path.symlink_to("/dev/zero"), r"pipe\.jsonl: cannot be read: it is a character device"),
        (lambda path: path.symlink_to("fifo"), r"pipe\.jsonl: cannot be read: it is a FIFO"),
    ],
)
@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, make: Callable[[Path], object], said: str
) -> None:
    write(tmp_path / "chats/a.jsonl")
    os.mkfifo(tmp_path / "chats/fifo")
    make(tmp_path / "chats/pipe.jsonl")
    monkeypatch.setattr("assay.read.looks.sniff", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(UserMistake, match=said):
        take_inventory([str(tmp_path / "chats/a.jsonl"), str(tmp_path / "chats" / where)])


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("gone")
    for where in (tmp_path, tmp_path / "*.jsonl"):
        with pytest.raises(UserMistake, match=r"b\.jsonl: cannot be read: No such file"):
            take_inventory([str(where)])


@pytest.mark.timeout(20)
def test_a_folder_whose_manifest_is_a_fifo_holds_no_results(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    os.mkfifo(tmp_path / "manifest.json")
    assert [file.path for file in take_inventory([str(tmp_path / "*.jsonl")]).files] == [path]


def test_no_input_is_the_users_mistake() -> None:
    with pytest.raises(UserMistake, match="no input"):
        take_inventory([])
    with pytest.raises(UserMistake, match="the input's name is empty"):
        take_inventory([""])


def test_results_of_runs_are_no_input_unless_they_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "data/a.jsonl")
    results = write_results(tmp_path / "data/out")
    for where in ("data", "data/**/*.jsonl"):
        said: list[str] = []
        inventory = take_inventory([str(tmp_path / where)], output=tmp_path / "data/out", say=said.append)
        assert [file.path for file in inventory.files] == [path]
        assert said == [f"{tmp_path}/data/out: holds the results of a run, which are not read"]
    manifest = tmp_path / "data/out/manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-3])
    for where in ("data", "data/**/*.jsonl", "data/out"):
        with pytest.raises(UserMistake, match=r"out/manifest\.json: looks like a run's manifest and is"):
            take_inventory([str(tmp_path / where)])
    assert [file.path for file in take_inventory([results]).files] == [results]
    # Somebody else's file of that name makes no results.
    (tmp_path / "data/out/manifest.json").write_bytes(b'{"name": "something"}')
    assert len(take_inventory([str(tmp_path / "data/**/*.jsonl")]).files) == 2


def test_what_a_run_wrote_for_a_trainer_is_no_input_unless_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "data/a.jsonl")
    result = write(tmp_path / "data/trl/sft.jsonl")
    (tmp_path / "data/manifest.json").write_bytes(b'{"assay": "0", "files": {"messages.jsonl": {}}}')
    pattern = str(tmp_path / "data/*/*.jsonl")
    assert [file.path for file in take_inventory([pattern]).files] == [result]
    (tmp_path / "data/manifest.json").write_bytes(b'{"assay": "0", "files": {"trl/sft.jsonl": {}}}')
    said: list[str] = []
    with pytest.raises(UserMistake, match="matches no file but results of runs"):
        take_inventory([pattern], say=said.append)
    assert said == [f"{tmp_path}/data/trl: is among the results of a run, which are not read"]
    assert [file.path for file in take_inventory([result]).files] == [result]
    assert path


def test_no_file_is_read_that_lies_where_the_output_goes(tmp_path: Path) -> None:
    results = write_results(tmp_path / "out")
    (tmp_path / "link.jsonl").symlink_to(results)
    for where in (results, str(tmp_path / "link.jsonl")):
        with pytest.raises(
            UserMistake, match=r"\.jsonl: lies in the output folder or its \.unusable, which the run replaces"
        ):
            take_inventory([where], output=tmp_path / "out")


def test_no_file_is_read_that_lies_where_what_could_not_be_used_goes(tmp_path: Path) -> None:
    results = write_results(tmp_path / "out.unusable")
    with pytest.raises(UserMistake, match=r"lies in the output folder or its \.unusable"):
        take_inventory([results], output=tmp_path / "out")


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(PAIR)
    with pytest.raises(UserMistake, match=r"caf\\udce9\.jsonl': the name is not UTF-8"):
        take_inventory([str(tmp_path)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_the_users_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    os.chmod(path, 0)
    with pytest.raises(UserMistake, match="cannot be read"):
        take_inventory([path])


def test_an_unknown_format_names_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="did you mean 'sharegpt'"):
        take_inventory([write(tmp_path / "a.jsonl")], format="sharegtp")


def test_the_digest_is_that_of_the_bytes_on_disk(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl")
    third = write(tmp_path / "c.jsonl", PAIR)
    first, second, last = take_inventory([one, other, third]).files
    assert first.digest == second.digest != last.digest
    assert (first.size, last.size) == (len(PAIR) + 1, len(PAIR))


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.sampled_from([b"", b" ", b"{}", b'{"a":"\xe2\x80\xa8"}', b"x" * 40]), max_size=30),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    ends_open=st.booleans(),
    shard_bytes=st.integers(1, 90),
)
def test_shards_of_any_size_hold_the_same_records(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    ending: bytes,
    ends_open: bool,
    shard_bytes: int,
) -> None:
    data = b"".join(each + ending for each in lines)
    if ends_open:
        data = data.removesuffix(ending)
    path = write(tmp_path_factory.mktemp("shards") / "a.jsonl", data)
    inventory = take_inventory([path], format="messages", shard_bytes=shard_bytes)
    whole = RawRecords(sniff(path))
    expected = list(whole)
    found, counted = [], 0
    for shard in inventory.shards:
        part = RawRecords(sniff(path), offset=shard.offset, length=shard.length, first_line=shard.first_line)
        found += list(part)
        counted += part.lines
    assert found == expected
    assert counted == whole.lines
    assert sum(shard.length for shard in inventory.shards) == len(data)


def test_lines_are_numbered_and_placed_as_an_editor_would(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"{}\n\n  \n[1]\r\n{}")
    assert raw_records(path) == [
        (1, 0, 2, b"{}", None),
        (4, 7, 3, b"[1]", None),
        (5, 12, 2, b"{}", None),
    ]


def test_bom_crlf_open_end_and_line_separators_change_no_row(tmp_path: Path) -> None:
    """Fault 28."""
    tricky = line("a\u2028b\u2029c\x85d\x0be", "f\x1cg")
    plain = [raw[3] for raw in raw_records(write(tmp_path / "a.jsonl", tricky + b"\n" + PAIR + b"\n"))]
    odd = [
        raw[3] for raw in raw_records(write(tmp_path / "b.jsonl", b"\xef\xbb\xbf" + tricky + b"\r\n" + PAIR))
    ]
    assert plain == odd == [tricky, PAIR]


def test_an_empty_file_and_blank_lines_give_no_rows(tmp_path: Path) -> None:
    """Fault 30."""
    for name, data, lines in (("a.jsonl", b"", 0), ("b.jsonl", b"\n \n\t\r\n", 3), ("c.json", b" ", 1)):
        outcome = converted_file(tmp_path, data, name=name)
        assert outcome.records == []
        assert (outcome.converted.lines, outcome.converted.complete) == (lines, True)
    assert converted_file(tmp_path, gzip.compress(b""), name="d.jsonl.gz").converted.complete
    assert converted_file(tmp_path, b"[]", name="e.json").converted.complete


def test_empty_files_of_text_are_named_in_a_line(tmp_path: Path) -> None:
    said: list[str] = []
    first = write(tmp_path / "a.jsonl", b"")
    take_inventory([first, write(tmp_path / "b.jsonl")], say=said.append)
    take_inventory([first, write(tmp_path / "b.jsonl"), write(tmp_path / "c.csv", b"")], say=said.append)
    take_inventory([write(tmp_path / "d.jsonl", b"\n")], say=said.append)
    assert said == [
        f"warning: 1 input file is empty: {first}",
        f"warning: 2 input files are empty: {first} and 1 more",
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.parquet", "not a Parquet file"),
        ("A.PARQUET", "not a Parquet file"),
        ("a.arrow", "not an Arrow file"),
        ("a.feather", "not an Arrow file"),
        ("a.jsonl.gz", "is not compressed"),
        ("a.json.zst", "is not compressed"),
        ("a.CSV.zstd", "is not compressed"),
        ("a.parquet.gz", "not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_empty_is_refused_without_a_byte(tmp_path: Path, name: str, kind: str) -> None:
    """Such a file is what an interrupted copy leaves; its rows would be lost without a word."""
    path = write(tmp_path / name, b"")
    with pytest.raises(UserMistake) as refused:
        take_inventory([path])
    assert str(refused.value) == (
        f"{path}: {kind}, though its name says so: it has no bytes. Copy it again, or remove it."
    )


def test_a_long_line_is_refused_without_being_held(tmp_path: Path) -> None:
    """Fault 29: 50 MB, of which a limit of 1 MB leaves the rows around it whole."""
    path = tmp_path / "a.jsonl"
    long = 50 << 20
    with path.open("wb") as file:
        file.write(PAIR + b"\n")
        for _ in range(50):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + PAIR)
    raws = raw_records(str(path), max_record_bytes=1 << 20)
    after = len(PAIR) + 1 + long + 1
    assert [raw[:3] for raw in raws] == [
        (1, 0, len(PAIR)),
        (2, len(PAIR) + 1, long),
        (3, after, len(PAIR)),
    ]
    assert raws[1][3] == b""
    assert raws[1][4] == f"line_too_long: {long} bytes; at most {1 << 20} are held"


def test_a_long_line_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.write(b'[{"a": "')
        for _ in range(24):
            file.write(b"x" * (1 << 20))
        file.write(b'"}, {}]')
    tracemalloc.start()
    try:
        raws = raw_records(str(path), max_record_bytes=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [raw[0] for raw in raws] == [1, 2]
    assert raws[0][4] is not None
    assert raws[1][3] == b"{}"
    assert peak < 12 << 20


@pytest.mark.parametrize("size", [9, 10, 11])
def test_the_limit_itself_is_not_too_long(tmp_path: Path, size: int) -> None:
    for name, data in (("a.jsonl", b"x" * size + b"\n"), ("a.json", b"[" + b"x" * size + b"]")):
        ((*_, problem),) = raw_records(write(tmp_path / name, data), max_record_bytes=10)
        assert (problem is None) == (size <= 10)


def test_compression_is_known_by_magic_bytes(tmp_path: Path) -> None:
    packed = write(tmp_path / "a.jsonl", gzip.compress(PAIR))
    unpacked = write(tmp_path / "b.jsonl.gz", PAIR)
    zstd = write(tmp_path / "c.jsonl", zstandard.compress(PAIR))
    assert [sniff(path).compression for path in (packed, unpacked, zstd)] == ["gzip", "none", "zstd"]
    assert {raw_records(path)[0][3] for path in (packed, unpacked, zstd)} == {PAIR}


def test_members_frames_and_padding_are_read_through(tmp_path: Path) -> None:
    skippable = b"\x53\x2a\x4d\x18\x03\x00\x00\x00abc"
    halves = PAIR[:20], PAIR[20:] + b"\n" + PAIR
    members = b"".join(gzip.compress(half) for half in halves) + b"\0" * 1000
    frames = skippable + b"".join(zstandard.compress(half) + skippable for half in halves)
    for name, data in (("a.jsonl.gz", members), ("a.jsonl.zst", frames)):
        raws = RawRecords(sniff(write(tmp_path / name, data)))
        assert [raw.data for raw in raws] == [PAIR, PAIR]
        assert raws.complete


def test_garbage_after_gzip_makes_it_incomplete(tmp_path: Path) -> None:
    raws = RawRecords(sniff(write(tmp_path / "a.jsonl.gz", gzip.compress(PAIR + b"\n") + b"garbage")))
    whole, cut = raws
    assert whole.data == PAIR
    assert cut == (2, len(PAIR) + 1, 0, b"", "cut_short: something that is not gzip follows the gzip data")
    assert raws.why_incomplete == "is cut short: something that is not gzip follows the gzip data"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        # The checksum, then the length, in a gzip member's last eight bytes.
        ("a.jsonl.gz", gzip.compress(PAIR + b"\n", mtime=0)[:-8] + b"\0" * 8, "incorrect data check"),
        ("b.jsonl.gz", gzip.compress(PAIR + b"\n", mtime=0)[:-4] + b"\0" * 4, "incorrect length check"),
        ("c.jsonl.zst", CHECKED_ZSTD[:-4] + b"\0" * 4, "doesn't match checksum"),
        ("d.jsonl.zst", SIZED_ZSTD, "the zstd data are damaged"),
        ("e.json", b"[" + PAIR, "the JSON array has no closing bracket"),
        ("f.json.gz", gzip.compress(b"[" + PAIR + b"]", mtime=0)[:-8] + b"\0" * 8, "incorrect data check"),
    ],
)
def test_what_says_how_much_there_is_is_held_against_what_came_out(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    """All records are whole, and yet something is missing or altered: the quarantine says so."""
    outcome = converted_file(tmp_path, data, name=name)
    assert [record["outcome"] for record in outcome.records] == ["ok", "quarantined"]
    assert outcome.records[1]["reason"].startswith("cut_short: ")
    assert said in outcome.records[1]["reason"]
    assert not outcome.converted.complete
    (shortfall,) = outcome.converted.shortfalls
    assert (shortfall.file, shortfall.quarantined) == (str(tmp_path / name), 1)
    records = pl.DataFrame(outcome.records).filter(pl.col("outcome") == "quarantined")
    (entry,) = quarantine_lines(outcome.converted.inputs[0], records, Home(tmp_path / "home"))
    assert json.loads(entry)["original"] == ""


def test_a_long_zstd_window_is_read(tmp_path: Path) -> None:
    """As ``zstd --long=31`` writes it; the frame's descriptor is followed by the window's."""
    assert zstandard.get_frame_parameters(LONG_WINDOW).window_size == 2 << 30
    outcome = converted_file(tmp_path, LONG_WINDOW, name="a.jsonl.zst")
    assert outcome.converted.counts.ok == 1
    assert outcome.converted.complete


def test_zstd_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    beyond = LONG_WINDOW[:5] + b"\xb0" + LONG_WINDOW[6:]
    skippable = b"\x53\x2a\x4d\x18\x03\x00\x00\x00abc"
    with_dictionary = b"\x28\xb5\x2f\xfd\x01\x58\x07" + LONG_WINDOW[6:]
    for data, said in (
        (beyond, "window of more than 2 GiB"),
        (skippable + beyond, "window of more than 2 GiB"),
        (with_dictionary, "it needs zstd dictionary 7"),
    ):
        with pytest.raises(UserMistake, match=said):
            take_inventory([write(tmp_path / "a.jsonl.zst", data)])


def test_a_file_that_is_packed_by_name_and_neither_packed_nor_text_is_refused(tmp_path: Path) -> None:
    for name, data in (("a.jsonl.gz", gzip.compress(PAIR)), ("a.jsonl.zst", zstandard.compress(PAIR))):
        flipped = bytes([data[0] ^ 1]) + data[1:]
        with pytest.raises(UserMistake, match="is not compressed, though its name says so, and is not text"):
            take_inventory([write(tmp_path / name, flipped)])


@pytest.mark.slow
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_all_before_a_fault_comes_out_also_in_a_later_part(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """Of the second member or frame, which is larger than what is read at a time, the checksum is wrong."""
    rows = [line(os.urandom(60).hex(), "x") for _ in range(40_000)]
    data = pack(PAIR + b"\n") + pack(b"\n".join(rows))
    raws = RawRecords(sniff(write(tmp_path / "a.jsonl.packed", data[:-1] + bytes([data[-1] ^ 1]))))
    assert [raw.data for raw in raws] == [PAIR, *rows, b""]
    assert not raws.complete


ROWS = [line(f"question {number} \u2028 {'x' * number}", f"answer {number}") for number in range(40)]
PLAIN = b"".join(row + b"\n" for row in ROWS)
HALVES = [b"".join(row + b"\n" for row in rows) for rows in (ROWS[:11], ROWS[11:])]
ARRAY = b"[" + b",\n ".join(ROWS) + b"]"
#: Parts that a file may end after without a sign that more was to come.
PARTS = {
    "a.jsonl.gz": [gzip.compress(half, mtime=0) for half in HALVES],
    "a.jsonl.zst": [zstandard.compress(half) for half in HALVES],
    "a.json": [ARRAY],
    "b.json.gz": [gzip.compress(ARRAY, mtime=0)],
}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(PARTS)), share=st.floats(0, 1))
@example(name="a.jsonl.gz", share=1.0)
@example(name="a.jsonl.gz", share=len(PARTS["a.jsonl.gz"][0]) / len(b"".join(PARTS["a.jsonl.gz"])))
def test_a_file_cut_anywhere_gives_its_whole_records(
    tmp_path_factory: pytest.TempPathFactory, name: str, share: float
) -> None:
    """Fault 31."""
    data = b"".join(PARTS[name])
    # Less would not tell the compression; nothing of the content is in it either.
    cut = max(4, round(share * len(data)))
    path = write(tmp_path_factory.mktemp("cut") / name, data[:cut])
    container = "array" if ".json." in f"{name}." else "lines"
    raws = RawRecords(Source(path, container, sniff(path).compression))
    records = list(raws)
    whole = [raw.data for raw in records if raw.problem is None]
    tail = records[len(whole) :]
    assert whole == ROWS[: len(whole)]
    assert len(tail) <= 1
    assert all(raw.problem and raw.problem.startswith("cut_short: ") for raw in tail)
    assert raws.complete == (cut in (len(PARTS[name][0]), len(data)))


def test_the_tail_of_a_cut_file_is_quarantined_with_its_place(tmp_path: Path) -> None:
    """Fault 31."""
    data = b"[" + PAIR + b", " + PAIR[:30]
    outcome = converted_file(tmp_path, data, name="a.json")
    assert [record["outcome"] for record in outcome.records] == ["ok", "quarantined"]
    tail = outcome.records[1]
    assert (tail["line"], tail["offset"], tail["length"]) == (2, len(PAIR) + 3, 30)
    assert tail["reason"].startswith("cut_short: the JSON array has no closing bracket")
    assert not outcome.converted.complete


def test_a_broken_element_costs_only_itself(tmp_path: Path) -> None:
    broken = [
        b'{"messages": oops}',
        b"{]",
        b"}",
        b"12",
        b'"[{,"',
        b"nul",
        b'{"a": "\\q"}',
        b'{"a" 1} {"b": 2}',
    ]
    data = b"\xef\xbb\xbf [\n" + b",\n".join(each + b",\r\n " + PAIR for each in broken) + b"\n]\n"
    outcome = converted_file(tmp_path, data, name="a.json")
    assert outcome.converted.counts.ok == len(broken)
    assert [record["reason"] is None for record in outcome.records] == [False, True] * len(broken)
    assert outcome.converted.complete
    originals = list(
        read_originals(
            str(tmp_path / "a.json"), [(record["offset"], record["length"]) for record in outcome.records]
        )
    )
    assert originals == [data for each in broken for data in (each, PAIR)]


def test_what_follows_an_array_is_quarantined(tmp_path: Path) -> None:
    outcome = converted_file(tmp_path, b"[" + PAIR + b"] x", name="a.json")
    assert [record["reason"] for record in outcome.records] == [
        None,
        "trailing_data: something follows the JSON array's closing bracket",
    ]


@pytest.mark.parametrize(
    "data",
    [
        PAIR + b"\n" + PAIR + b"\n",
        PAIR + b"\n" + PAIR,
        json.dumps(json.loads(PAIR), indent=2).encode()
        + b"\n"
        + json.dumps(json.loads(PAIR), indent=2).encode(),
        b"\xef\xbb\xbf[" + PAIR + b"," + PAIR + b"]",
        b"[" + PAIR + b"," + PAIR + b",]",
        json.dumps([json.loads(PAIR)] * 2, indent=1).encode(),
    ],
)
def test_a_json_file_may_hold_an_array_lines_or_objects(tmp_path: Path, data: bytes) -> None:
    outcome = converted_file(tmp_path, data, name="a.json")
    assert outcome.converted.counts.ok == 2
    assert [record["line"] for record in outcome.records] == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        b"[" + PAIR + b"," + PAIR + b"]",
        b" [\n" + PAIR + b",\n" + PAIR + b"\n]\n",
        b"[" + PAIR + b",\n" + PAIR + b"]\n",
        b"[" + PAIR + b"\n," + PAIR + b"\n]",
        json.dumps([json.loads(PAIR)] * 2, indent=1).encode(),
        # Without a time in it: each worker of the tests has to find tests of the same names.
        gzip.compress(b"[" + PAIR + b"," + PAIR + b"]", mtime=0),
    ],
)
def test_an_array_is_one_whatever_its_file_is_called(tmp_path: Path, data: bytes) -> None:
    outcome = converted_file(tmp_path, data, name="a.jsonl")
    assert outcome.converted.counts.ok == 2
    assert [record["line"] for record in outcome.records] == [1, 2]


def test_a_line_that_is_an_array_costs_only_itself(tmp_path: Path) -> None:
    for bad in (b"[1]", b"[" + PAIR, b"[oops"):
        outcome = converted_file(tmp_path, bad + b"\n" + PAIR + b"\n", name="a.jsonl")
        assert [record["outcome"] for record in outcome.records] == ["quarantined", "ok"]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.recursive(
            st.none() | st.integers() | st.text(alphabet='ab",\\[]{}\n é'),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=8,
    ),
    indent=st.sampled_from([None, 1]),
)
def test_any_array_splits_into_its_elements(
    tmp_path_factory: pytest.TempPathFactory, values: list[object], indent: int | None
) -> None:
    path = write(
        tmp_path_factory.mktemp("array") / "a.json",
        json.dumps(values, indent=indent, ensure_ascii=False).encode(),
    )
    raws = RawRecords(Source(path, "array", "none"))
    assert [json.loads(raw.data) for raw in raws] == values
    assert raws.complete


def test_values_that_straddle_reads_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [line('a "quoted\\" {[,]} text', f"answer {number}") for number in range(5)]
    array = write(tmp_path / "a.json", b"[" + b" ,\n".join(rows) + b"]")
    lines = write(tmp_path / "a.jsonl", b"\n".join(rows))
    for read_bytes in (1, 2, 3, 7, 64):
        monkeypatch.setattr("assay.read.streams._READ_BYTES", read_bytes)
        assert [raw[3] for raw in raw_records(array)] == rows
        assert [raw[3] for raw in raw_records(lines)] == rows


def test_parquet_rows_are_read_in_order(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "messages": [
                [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{n}"}]
                for n in range(9)
            ],
            "score": [n / 2 for n in range(9)],
        }
    )
    path = tmp_path / "a.parquet"
    frame.write_parquet(path, row_group_size=4)
    outcome = converted_file(tmp_path, path.read_bytes(), name="a.parquet")
    assert [record["messages"][1]["content"] for record in outcome.records] == [f"a{n}" for n in range(9)]
    assert [(record["line"], record["offset"]) for record in outcome.records] == [
        (n + 1, n) for n in range(9)
    ]
    assert outcome.records[3]["rest"] == '{"score":1.5}'
    third, last = read_originals(str(path), [(2, 1), (8, 1)])
    assert json.loads(third)["score"] == 1.0
    assert json.loads(last)["score"] == 4.0


def test_originals_of_a_parquet_file_that_has_shrunk_end_early(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"prompt": ["p"] * 3}).write_parquet(path)
    assert list(read_originals(str(path), [(2, 14), (7, 14)])) == [b'{"prompt":"p"}']


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_originals_are_the_bytes_of_the_lines(tmp_path: Path, name: str) -> None:
    packed = {"gz": gzip.compress(PLAIN), "zst": zstandard.compress(PLAIN)}
    path = write(tmp_path / name, packed.get(name.rpartition(".")[2], PLAIN))
    raws = raw_records(path)[1::3]
    assert list(read_originals(path, [(raw[1], raw[2]) for raw in raws])) == ROWS[1::3]
    # Part of a record, and a record in two pieces.
    assert list(read_originals(path, [(3, 4), (7, 2)])) == [PLAIN[3:7], PLAIN[7:9]]


def test_originals_of_a_cut_file_end_where_it_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(PLAIN)[:-200])
    *_, tail = RawRecords(sniff(path))
    assert tail.problem is not None
    (original,) = read_originals(path, [(tail.offset, tail.length)])
    assert len(original) == tail.length
    assert PLAIN[tail.offset :].startswith(original)


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": []}, "messages"),
        ({"conversations": []}, "sharegpt"),
        ({"conversations": [], "mask": "User"}, "steerlm"),
        ({"conversations": [], "type": "VALUE_TO_TEXT"}, "steerlm"),
        ({"conversations": [{"from": "User", "value": "x", "label": None}]}, "steerlm"),
        ({"conversations": [], "type": "chat"}, "sharegpt"),
        ({"instruction": "a", "input": "", "output": "b"}, "instruction"),
        ({"prompt": "a", "response": "b", "helpfulness": 3}, "instruction"),
        ({"prompt": "a", "responses": ["b", "c"]}, "responses"),
        ({"prompt": [], "completions": []}, "responses"),
        ({"chosen": "a", "rejected": "b"}, "preference"),
        ({"conversations": [], "chosen": {}, "rejected": {}}, "preference"),
        ({"prompt": "a", "response_1": "", "response_2": "", "preference_strength": 1}, "helpsteer_pairs"),
        ({"message_tree_id": "t", "prompt": {"text": "", "role": "", "replies": []}}, "oasst_trees"),
        ({"message_id": "a", "parent_id": None, "text": "", "role": "prompter"}, "oasst_messages"),
    ],
)
def test_a_format_is_recognised_by_content(tmp_path: Path, row: dict[str, object], format: str) -> None:
    data = b"not JSON\n\n" + json.dumps(row).encode() + b"\n"
    assert take_inventory([write(tmp_path / "a.jsonl", data)]).files[0].format == format


def test_a_format_that_was_named_is_not_guessed(tmp_path: Path) -> None:
    assert take_inventory([write(tmp_path / "a.jsonl")], format="sharegpt").files[0].format == "sharegpt"


def test_a_cut_gzip_file_gives_every_byte_that_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that zlib still holds when its input has ended."""
    monkeypatch.setattr("assay.read.streams._READ_BYTES", 64)
    data = gzip.compress(b"x" * 20_000)
    for cut in range(20, len(data)):
        path = write(tmp_path / "a.jsonl.gz", data[:cut])
        chunks: list[bytes] = []
        with pytest.raises(CutShortError, match="end in the middle"):
            chunks.extend(stream(path, sniff(path).compression))
        assert max(map(len, chunks), default=0) <= 64
        assert b"".join(chunks) == zlib.decompressobj(wbits=31).decompress(data[:cut])
