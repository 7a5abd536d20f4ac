"""Arrow files: each record batch by itself; a file that is damaged or cut loses no row without a word."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from converting import converted_paths, said
from flipping import chats, flip, stream_parts
from stages import take_inventory

from assay.core.errors import UserMistake
from assay.export.quarantine import quarantine_lines
from assay.read.arrow_messages import read_messages
from assay.read.damage import DamagedTable
from assay.read.sources import RawRecords, read_originals, sniff
from assay.read.tables import decoder_kept
from assay.storage.home import Home

ROWS, STEP = 120, 40
Form = Literal["stream", "file"]
#: As pyarrow and ``datasets`` lay texts out, and as polars does.
LAYOUTS = (pl.CompatLevel.oldest(), pl.CompatLevel.newest())


@pytest.fixture(scope="module", autouse=True)
def one_decoder() -> Iterator[None]:
    """One process decodes for all tests here, since to start one takes most of a second."""
    with decoder_kept():
        yield


def streamed(frame: pl.DataFrame, **how: Any) -> bytes:
    """The stream form, with ``STEP`` rows a batch."""
    return b"".join(stream_parts(frame, STEP, **how))


def arrow(frame: pl.DataFrame, form: Form, **how: Any) -> bytes:
    if form == "stream":
        return streamed(frame, **how)
    whole = io.BytesIO()
    frame.write_ipc(whole, record_batch_size=STEP, **how)
    return whole.getvalue()


@pytest.mark.parametrize("form", ["stream", "file"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_both_forms_are_read_row_by_row(
    tmp_path: Path, form: Form, layout: pl.CompatLevel, compression: str
) -> None:
    frame = chats(ROWS, nested=True)
    path = tmp_path / "rows.arrow"
    path.write_bytes(arrow(frame, form, compression=compression, compat_level=layout))
    outcome = converted_paths(tmp_path, str(path))
    assert [record["line"] for record in outcome.records] == list(range(1, ROWS + 1))
    for record, row in zip(outcome.records, frame.iter_rows(named=True), strict=True):
        assert record["messages"] == row["messages"]
        assert json.loads(record["rest"]) == {"source": row["source"], "number": row["number"]}
    assert outcome.converted.complete


def test_texts_from_a_dictionary_are_read(tmp_path: Path) -> None:
    frame = chats(ROWS, nested=False).with_columns(pl.col("kind").cast(pl.Categorical))
    for form in ("stream", "file"):
        path = tmp_path / f"{form}.arrow"
        path.write_bytes(arrow(frame, "file") if form == "file" else _one_batch(frame))
        rows = [json.loads(raw.data) for raw in RawRecords(sniff(str(path)))]
        assert [row["kind"] for row in rows] == frame["kind"].to_list()


def _one_batch(frame: pl.DataFrame) -> bytes:
    whole = io.BytesIO()
    frame.write_ipc_stream(whole)
    return whole.getvalue()


def test_of_a_batch_that_cannot_be_read_every_row_is_in_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    path.write_bytes(streamed(chats(ROWS, nested=True), compression="zstd"))
    with path.open("rb") as file:
        batch = read_messages(file).batches[1]
    data = bytearray(path.read_bytes())
    # The body without its last bytes, which no buffer need reach.
    data[batch.offset + batch.length // 2 : batch.offset + batch.length - 64] = bytes(batch.length // 2 - 64)
    path.write_bytes(data)
    outcome = converted_paths(tmp_path, str(path))
    assert [record["line"] for record in outcome.records] == list(range(1, ROWS + 1))
    lost = [record for record in outcome.records if record["outcome"] == "quarantined"]
    assert [record["line"] for record in lost] == list(range(STEP + 1, 2 * STEP + 1))
    assert {(record["offset"], record["length"]) for record in lost} == {(batch.offset, batch.length)}
    assert lost[0]["reason"].startswith("damaged_row_group: record batch 2 of 3 cannot be read (")
    (shortfall,) = outcome.converted.shortfalls
    assert str(shortfall).endswith("40 records of it are in quarantine")
    (original,) = read_originals(str(path), [(ROWS - 1, 1)])
    assert json.loads(original)["number"] == ROWS - 1


def test_where_a_stream_is_cut_a_record_says_so(tmp_path: Path) -> None:
    """A cut behind a batch leaves a stream that looks whole but for the mark at its end."""
    whole = streamed(chats(ROWS, nested=True))
    path = tmp_path / "rows.arrow"
    path.write_bytes(whole)
    with path.open("rb") as file:
        last = read_messages(file).batches[2]
    end = last.offset + last.length
    for size, rows in ((len(whole) - 8, ROWS), (end - 9, 2 * STEP), (last.offset, 2 * STEP)):
        path.write_bytes(whole[:size])
        outcome = converted_paths(tmp_path, str(path))
        assert outcome.converted.counts.ok == rows
        assert outcome.converted.counts.quarantined == {"cut_short": 1}
        assert [record["line"] for record in outcome.records] == list(range(1, rows + 2))
        assert not outcome.converted.complete
        cut = pl.DataFrame(outcome.records[-1:])
        (entry,) = quarantine_lines(outcome.converted.inputs[0], cut, Home(tmp_path / "home"))
        assert json.loads(entry)["original"] == ""


def became(path: Path, sound: list[bytes]) -> str:
    """What became of a flipped or cut file; AssertionError where rows are lost without a word."""
    try:
        raws = RawRecords(sniff(str(path)))
        found = list(raws)
    except UserMistake:
        return "refused"
    if raws.complete:
        assert [raw.line for raw in found] == list(range(1, len(sound) + 1)), "rows are lost"
        assert [raw.problem for raw in found] == [None] * len(sound)
        return "as it was" if [raw.data for raw in found] == sound else "altered"
    assert any(raw.problem for raw in found)
    return "reported"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["stream", "file"])
@pytest.mark.parametrize("compression", ["uncompressed", "zstd"])
def test_no_flipped_bit_and_no_cut_loses_a_row_without_a_word(
    tmp_path: Path, form: Form, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(2)
    path = tmp_path / "rows.arrow"
    whole = arrow(chats(ROWS, nested=True), form, compression=compression, compat_level=LAYOUTS[0])
    path.write_bytes(whole)
    sound = [raw.data for raw in RawRecords(sniff(str(path)))]
    assert len(sound) == ROWS
    found: Counter[str] = Counter()
    for _ in range(60):
        flip(path, whole, chance.randrange(8 * len(whole)))
        found[became(path, sound)] += 1
    cuts: Counter[str] = Counter()
    for _ in range(20):
        path.write_bytes(whole[: chance.randrange(len(whole))])
        cuts[became(path, sound)] += 1
    assert found["reported"] > 10
    assert cuts["reported"] + cuts["refused"] == 20
    out, err = capfd.readouterr()
    assert out + err == ""


@pytest.mark.slow
def test_no_flipped_bit_in_the_head_of_a_batch_loses_a_row_without_a_word(tmp_path: Path) -> None:
    """Its length, its kind and its numbers of rows: each flip is tried, in a stream and in its end mark."""
    path = tmp_path / "rows.arrow"
    whole = streamed(chats(ROWS, nested=False), compression="lz4")
    path.write_bytes(whole)
    with path.open("rb") as file:
        second = read_messages(file).batches[1]
    places = ((second.offset, 64), (len(whole) - 8, 8))
    bits = [8 * begin + bit for begin, size in places for bit in range(8 * size)]
    sound = [raw.data for raw in RawRecords(sniff(str(path)))]
    for bit in bits:
        flip(path, whole, bit)
        assert became(path, sound) in ("refused", "reported", "as it was")


def _ends_early(whole: bytes, at: int, body: int, following: int) -> bytes:
    """The second batch begins as the end mark does."""
    return whole[: at + 4] + bytes(4) + whole[at + 8 :]


def _swallows_the_next(whole: bytes, at: int, body: int, following: int) -> bytes:
    """The second batch's body reaches to the end of the third batch."""
    stated = body.to_bytes(8, "little")
    place = whole.index(stated, at)
    return whole[:place] + (body + following).to_bytes(8, "little") + whole[place + 8 :]


def _loses_a_null(whole: bytes, at: int, body: int, following: int) -> bytes:
    """The first column's first value, which is null, is there."""
    place = at + 8 + int.from_bytes(whole[at + 4 : at + 8], "little")
    assert not whole[place] & 1
    return whole[:place] + bytes([whole[place] | 1]) + whole[place + 1 :]


def _states_no_rows(whole: bytes, at: int, body: int, following: int) -> bytes:
    """Zeros stand where the second batch and its columns state their rows."""
    place = at + 8 + int.from_bytes(whole[at + 4 : at + 8], "little")
    rows = STEP.to_bytes(8, "little")
    assert whole.count(rows, at, place) == 3
    return whole[:at] + whole[at:place].replace(rows, bytes(8)) + whole[place:]


MARKER = b"\xff\xff\xff\xff"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", ["uncompressed", "zstd"])
@pytest.mark.parametrize("damaged", [1, 2, 3])
@pytest.mark.parametrize(
    "strike",
    [
        lambda rest: bytes(4) + rest[4:],
        lambda rest: bytes(64) + rest,
        lambda rest: b"words" * 30 + rest,
        lambda rest: b"\xff\xff\xff\xfe" + rest[4:],
    ],
    ids=["zeros", "zeros put in", "words put in", "a bit"],
)
def test_a_batch_is_read_though_what_follows_it_begins_with_damage(
    tmp_path: Path,
    layout: pl.CompatLevel,
    compression: str,
    damaged: int,
    strike: Callable[[bytes], bytes],
) -> None:
    parts = stream_parts(chats(ROWS, nested=True), STEP, compression=compression, compat_level=layout)
    assert len(parts) == 5
    rest = b"".join(parts[1 + damaged :])
    assert rest.startswith(MARKER)
    path = tmp_path / "rows.arrow"
    path.write_bytes(b"".join(parts[: 1 + damaged]) + strike(rest))
    records = list(RawRecords(sniff(str(path))))
    whole = [record for record in records if record.problem is None]
    assert len(whole) == STEP * damaged
    assert [record.problem is not None for record in records[len(whole) :]] == [True]


@pytest.mark.parametrize("compression", ["uncompressed", "zstd", "lz4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_without_rows_is_no_damage(tmp_path: Path, layout: pl.CompatLevel, compression: str) -> None:
    path = tmp_path / "rows.arrow"
    frame = chats(2 * STEP, nested=True)
    how = {"compression": compression, "compat_level": layout}
    schema, first, second, end = stream_parts(frame, STEP, **how)
    for empty in (frame.clear(), frame.head(0)):
        path.write_bytes(b"".join([schema, first, stream_parts(empty, STEP, **how)[1], second, end]))
        outcome = converted_paths(tmp_path, str(path))
        assert outcome.converted.counts.ok == 2 * STEP
        assert outcome.converted.complete


@pytest.mark.parametrize("meddle", [_ends_early, _swallows_the_next, _loses_a_null, _states_no_rows])
def test_a_batch_that_contradicts_itself_is_reported(
    tmp_path: Path, meddle: Callable[[bytes, int, int, int], bytes]
) -> None:
    """polars takes each of these files for a whole one."""
    path = tmp_path / "rows.arrow"
    prompts = [None if row % STEP == 0 else f"q{row}" for row in range(ROWS)]
    frame = pl.DataFrame({"prompt": prompts, "response": ["ok"] * ROWS})
    whole = streamed(frame, compat_level=LAYOUTS[0])
    path.write_bytes(whole)
    sound = [raw.data for raw in RawRecords(sniff(str(path)))]
    with path.open("rb") as file:
        _, second, third = read_messages(file).batches
    body = second.length - 8 - int.from_bytes(whole[second.offset + 4 : second.offset + 8], "little")
    path.write_bytes(meddle(whole, second.offset, body, third.length))
    pl.read_ipc_stream(path)
    assert became(path, sound) == "reported"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"something else", "though its name says so"),
        (b"ARROW1\0\0and no more", "does not end as an Arrow file does: it is cut short"),
        (b"ARROW1\0\0" + b"\xff\xff\xff\x7fARROW1", "its footer is longer than the file"),
        (b"\xff\xff\xff\xff\xff\xff\0\0and no more", "its schema cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "rows.arrow").write_bytes(data)
    with pytest.raises(UserMistake, match=rf"rows\.arrow: not an Arrow file.*{said}"):
        take_inventory([str(tmp_path / "rows.arrow")])


def test_a_footer_that_leaves_out_a_batch_is_refused(tmp_path: Path) -> None:
    whole = arrow(chats(ROWS, nested=False), "file")
    with io.BytesIO(whole) as file:
        batches = read_messages(file).batches
    # The footer's list of blocks: its length, then 24 bytes each.
    first = batches[0].offset.to_bytes(8, "little")
    at = whole.rindex(first) - 4
    assert whole[at : at + 4] == (3).to_bytes(4, "little")
    with (
        io.BytesIO(whole[:at] + b"\2" + whole[at + 1 :]) as file,
        pytest.raises(DamagedTable, match="its footer does not say what lies at byte"),
    ):
        read_messages(file)


def saved(folder: Path, *shards: str, splits: list[str] | None = None, data: bytes = b"") -> None:
    """A folder as ``datasets.save_to_disk`` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    if splits is not None:
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
        for split in splits:
            saved(folder / split, *shards, data=data)
        return
    for name in shards:
        (folder / name).write_bytes(data or streamed(chats(STEP, nested=True)))
    (folder / "dataset_info.json").write_text("{}")
    state = {"_data_files": [{"filename": name} for name in shards], "_split": None}
    (folder / "state.json").write_text(json.dumps(state, indent=2))


def test_of_a_saved_data_set_the_files_are_read_that_its_state_names(tmp_path: Path) -> None:
    shards = ("data-00000-of-00002.arrow", "data-00001-of-00002.arrow")
    saved(tmp_path / "set", *shards)
    (tmp_path / "set/cache-7f.arrow").write_bytes(streamed(chats(STEP, nested=True)))
    heard: list[str] = []
    inventory = take_inventory([str(tmp_path / "set")], say=heard.append)
    assert [file.path for file in inventory.files] == [str(tmp_path / "set" / name) for name in shards]
    assert (
        f"{tmp_path}/set/cache-7f.arrow: is not read, since {tmp_path}/set/state.json does not name it"
        in heard
    )
    outcome = converted_paths(tmp_path, str(tmp_path / "set"))
    assert outcome.converted.counts.ok == 2 * STEP == outcome.converted.counts.read
    assert said(outcome.records[0])[1][0] == "assistant"


def test_of_a_saved_data_set_all_splits_are_read_and_nothing_else(tmp_path: Path, monkeypatch: Any) -> None:
    saved(tmp_path / "set", "data-00000-of-00001.arrow", splits=["train", "test"])
    saved(tmp_path / "set/old", "data-00000-of-00001.arrow")
    monkeypatch.chdir(tmp_path)
    for given in ("set", "set/**"):
        found = [file.path for file in take_inventory([given]).files]
        assert found == [f"set/{split}/data-00000-of-00001.arrow" for split in ("test", "train")]


def _without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _written(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


CHOSEN = '{"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{"filename": "indices.arrow"}]}'


@pytest.mark.parametrize(
    ("meddle", "said"),
    [
        (_without("train/b.arrow"), r"train/b\.arrow: is missing.*\(1 of 2 files are missing\)"),
        (_written("train/state.json", "{}"), r"train/state\.json: does not say which files hold the rows"),
        (_written("train/state.json", CHOSEN), r"train/state\.json: .*flatten_indices"),
        (_written("dataset_dict.json", '{"splits": ["train", "eval"]}'), "set/eval: is missing"),
        (_written("dataset_dict.json", "[]"), r"dataset_dict\.json: does not say"),
    ],
)
def test_a_saved_data_set_that_is_not_whole_is_refused(tmp_path: Path, meddle: Any, said: str) -> None:
    saved(tmp_path / "set", "a.arrow", "b.arrow", splits=["train", "test"])
    meddle(tmp_path / "set")
    with pytest.raises(UserMistake, match=said):
        take_inventory([str(tmp_path / "set")])
