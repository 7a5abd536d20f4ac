"""Write rows into a file, strike the file, and hold what is read of it against what was written.

Who counts what was read cannot see rows that were never read: here the writer counts.
``read/test_struck_inputs.py`` strikes some files in each run of the tests, ``benchmarks/fuzz_readers.py`` as
many as there is time for.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import tempfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import polars as pl
import zstandard
from converting import Outcome, converted_file
from flipping import stream_parts

from assay.core.errors import InputFault, UserMistake
from assay.read.sources import RawRecords, sniff

#: They are to stand out among damaged bytes, and to need escapes, quotes and several bytes a letter.
_WORDS = (
    "mill",
    'a "quoted" word',
    "two\nlines",
    "a, comma",
    "čaj 茶 🫖",
    "\\ and \t",
    "[{}]",
    "x" * 300,
    "\u2028",
)


class Draws(Protocol):
    """Where the choices of a case come from."""

    def number(self, most: int) -> int:
        """A number from 0 to ``most``."""

    def take(self, count: int) -> bytes:
        """So many bytes, or fewer."""


class Bytes:
    """The choices that a fuzzer's bytes stand for; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, most: int) -> int:
        """A number from 0 to ``most``."""
        size = (most.bit_length() + 7) // 8
        return int.from_bytes(self.take(size), "little") % (most + 1)

    def take(self, count: int) -> bytes:
        """So many bytes, or as many as are left."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken


class Pair(NamedTuple):
    """A row, as its writer knows it."""

    question: str
    answer: str


class Written(NamedTuple):
    """A file, and where each of its rows ends."""

    name: str
    data: bytes
    before: Callable[[int], int]
    """How many rows are whole within so many first bytes of the file."""


def _json_row(pair: Pair, number: int) -> str:
    if number % 3 == 0:
        return json.dumps({"prompt": pair.question, "response": pair.answer})
    messages = [
        {"role": "user", "content": pair.question},
        {"role": "assistant", "content": pair.answer},
    ]
    return json.dumps({"messages": messages}, ensure_ascii=False)


class _Pieces(NamedTuple):
    """The bytes of a file, row by row."""

    head: bytes
    rows: Sequence[bytes]

    @property
    def data(self) -> bytes:
        return b"".join((self.head, *self.rows))

    def whole(self, size: int) -> int:
        """How many rows are whole within so many first bytes."""
        at, count = len(self.head), 0
        for row in self.rows:
            at += len(row)
            if at > size:
                break
            count += 1
        return count


def _as_lines(pairs: Sequence[Pair], draws: Draws) -> _Pieces:
    ending = ("\n", "\r\n", "\n\n")[draws.number(2)]
    head = b"\xef\xbb\xbf" if draws.number(3) == 0 else b""
    rows = [(_json_row(pair, number) + ending).encode() for number, pair in enumerate(pairs)]
    return _Pieces(head, rows)


def _as_array(pairs: Sequence[Pair], draws: Draws) -> _Pieces:
    between = (",", ",\n", " , ")[draws.number(2)]
    last = len(pairs) - 1
    rows = [
        (_json_row(pair, number) + (between if number < last else "]")).encode()
        for number, pair in enumerate(pairs)
    ]
    return _Pieces(b"[", rows)


def _as_csv(pairs: Sequence[Pair], draws: Draws) -> _Pieces:
    ending = ("\n", "\r\n")[draws.number(1)]

    def line(*cells: str) -> bytes:
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator=ending).writerow(cells)
        return file.getvalue().encode()

    return _Pieces(line("prompt", "response"), [line(*pair) for pair in pairs])


_TEXTS: dict[str, Callable[[Sequence[Pair], Draws], _Pieces]] = {
    "a.jsonl": _as_lines,
    "a.json": _as_array,
    "a.csv": _as_csv,
}
_PACKED: dict[str, Callable[[bytes], bytes]] = {
    # Without the time of day: the same choices are the same file.
    ".gz": partial(gzip.compress, mtime=0),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def _unpacked(data: bytes, packing: str, *, to_its_end: bool = False) -> bytes:
    """What the first bytes of a packed file hold; EOFError where they are to be all and end in the middle."""
    found = b""
    while data:
        unpacker = (
            zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            if packing == ".gz"
            else zstandard.ZstdDecompressor().decompressobj()
        )
        found += unpacker.decompress(data)
        if to_its_end and not unpacker.eof:
            raise EOFError
        data = unpacker.unused_data if unpacker.eof else b""
        if packing == ".gz":
            # gunzip passes over zeros behind a member.
            data = data.lstrip(b"\0")
    return found


def _packed(name: str, pieces: _Pieces, packing: str, size: int) -> Written:
    """The pieces, packed in members of so many bytes of theirs each."""
    whole = pieces.data
    data = b"".join(_PACKED[packing](whole[start : start + size]) for start in range(0, len(whole), size))
    return Written(name + packing, data, lambda count: pieces.whole(len(_unpacked(data[:count], packing))))


def _frame(pairs: Sequence[Pair]) -> pl.DataFrame:
    return pl.DataFrame(
        {"prompt": [pair.question for pair in pairs], "response": [pair.answer for pair in pairs]}
    )


def _parquet(pairs: Sequence[Pair], draws: Draws) -> Written:
    file = io.BytesIO()
    packings: tuple[Literal["zstd", "snappy", "uncompressed"], ...] = ("zstd", "snappy", "uncompressed")
    packing = packings[draws.number(2)]
    _frame(pairs).write_parquet(file, row_group_size=1 + draws.number(8), compression=packing)
    # Its footer is its end, so nothing is known of a file without one.
    return Written("a.parquet", file.getvalue(), lambda size: 0)


def _arrow(pairs: Sequence[Pair], draws: Draws) -> Written:
    """An Arrow stream, or a file, which has a footer too."""
    size = 1 + draws.number(8)
    packings: tuple[Literal["uncompressed", "zstd"], ...] = ("uncompressed", "zstd")
    compression = packings[draws.number(1)]
    frame = _frame(pairs)
    if draws.number(1):
        file = io.BytesIO()
        frame.write_ipc(file, compression=compression, record_batch_size=size)
        return Written("a.arrow", file.getvalue(), lambda count: 0)
    schema, *batches, end = stream_parts(frame, size, compression=compression)
    ends = list(accumulate(map(len, batches), initial=len(schema)))[1:]
    return Written(
        "a.arrow",
        b"".join((schema, *batches, end)),
        lambda count: min(len(frame), size * bisect_right(ends, count)),
    )


#: How a container writes rows that are no text.
_TABLES: dict[str, Callable[[Sequence[Pair], Draws], Written]] = {"a.parquet": _parquet, "a.arrow": _arrow}
_CONTAINERS = (*_TEXTS, *_TABLES)


def written(draws: Draws) -> tuple[list[Pair], Written]:
    """Rows, and a file that holds them."""
    container = _CONTAINERS[draws.number(len(_CONTAINERS) - 1)]
    packing = ("", ".gz", ".zst")[draws.number(2)]
    pairs = [
        Pair(
            f"question {number}: {_WORDS[draws.number(len(_WORDS) - 1)]}",
            f"answer {number}: {_WORDS[draws.number(len(_WORDS) - 1)]}",
        )
        for number in range(1 + draws.number(24))
    ]
    if container in _TABLES:
        return pairs, _TABLES[container](pairs, draws)
    pieces = _TEXTS[container](pairs, draws)
    if packing:
        return pairs, _packed(container, pieces, packing, 40 + draws.number(8000))
    return pairs, Written(container, pieces.data, pieces.whole)


def _struck_once(data: bytes, draws: Draws) -> bytes:
    """The data with a bit flipped, bytes exchanged, left out, repeated or put in, or its end cut off."""
    kind, at, size = draws.number(6), draws.number(len(data)), 1 + draws.number(300)
    before, struck, after = data[:at], data[at : at + size], data[at + size :]
    if kind == 0 and struck:
        return before + bytes([struck[0] ^ 1 << draws.number(7)]) + struck[1:] + after
    if kind == 1:
        return before
    if kind == 2:
        return before + after
    if kind == 3:
        return before + bytes(len(struck)) + after
    if kind == 4:
        other = draws.number(len(data))
        return before + data[other : other + size] + struck + after
    if kind == 5:
        return before + draws.take(size) + struck + after
    return before + draws.take(len(struck)) + after


def struck(data: bytes, draws: Draws) -> bytes:
    """The data, struck once or some times."""
    for _ in range(1 + draws.number(2)):
        data = _struck_once(data, draws)
    return data


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that waits for no disk, where the system has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def check_case(draws: Draws) -> str:
    """Write a file, read it, strike it, read it again: what became of it, in a word or two.

    AssertionError where rows went unseen; any error of a bug as it is.
    """
    pairs, file = written(draws)
    shard_bytes = 1 + draws.number(4000)
    with _folder() as folder:
        whole = converted_file(folder, file.data, name=file.name, shard_bytes=shard_bytes)
        assert _pairs(whole) == pairs
        assert whole.converted.complete
        assert not whole.converted.counts.quarantined
    data = struck(file.data, draws)
    if data == file.data:
        return "as it was"
    with _folder() as folder:
        return f"{file.name}: {check_struck(folder, pairs, file, data, shard_bytes)}"


def check_struck(folder: Path, pairs: Sequence[Pair], file: Written, data: bytes, shard_bytes: int) -> str:
    """Read a struck file and hold what comes of it against the rows that were written."""
    first = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(data, file.data, strict=False)))
    before = file.before(first)
    is_table = file.name in _TABLES
    try:
        outcome = converted_file(folder, data, name=file.name, shard_bytes=shard_bytes)
    except (UserMistake, InputFault):
        assert is_table or not before, "a file with whole rows at its beginning is refused"
        return "refused"
    counts, found = outcome.converted.counts, _pairs(outcome)
    is_whole = outcome.converted.complete and not counts.quarantined
    assert found[:before] == list(pairs[:before]), "rows before the damage are lost"
    assert len(outcome.records) == counts.read
    assert len({(record["line"], record["part"]) for record in outcome.records}) == counts.read
    if is_table:
        if is_whole:
            assert counts.read == len(pairs), "rows are lost without a word"
        return "altered" if is_whole else "in part"
    content, is_sound = _content(data, file.name)
    spans = [(raw.offset, raw.offset + raw.length) for raw in RawRecords(sniff(str(folder / file.name)))]
    for mark in _MARK.finditer(content):
        assert any(begin <= mark.start() and mark.end() <= end for begin, end in spans), (
            f"{mark.group().decode()} is in the file, and in no record and no line in quarantine"
        )
    if not is_sound:
        assert not is_whole, "the file is damaged, and nobody says so"
    if before and file.name.startswith("a.jsonl") and is_sound:
        assert counts.read == sum(bool(line.strip()) for line in content.split(b"\n"))
    if before and file.name.startswith("a.json") and not file.name.startswith("a.jsonl"):
        assert is_whole <= _is_array(content), "the array is damaged, and nobody says so"
    return "altered" if is_whole else "in part"


def _pairs(outcome: Outcome) -> list[Pair]:
    """The rows that became records, in their order, as far as they have a question and an answer."""
    return [
        Pair(record["messages"][0]["content"], record["messages"][1]["content"])
        for record in outcome.records
        if record["reason"] is None and len(record["messages"]) == 2
    ]


#: How each row that was written begins, in any container of text. No space ends it: a row that is cut short
#: is read without the spaces at its end.
_MARK = re.compile(rb"question \d+:")


def _content(data: bytes, name: str) -> tuple[bytes, bool]:
    """The text in a file, as far as it can be had; whether all of it could."""
    if not name.endswith((".gz", ".zst")):
        return data, True
    packing = name[name.rindex(".") :]
    try:
        return _unpacked(data, packing, to_its_end=True), True
    except (zlib.error, zstandard.ZstdError, EOFError):
        pass
    # Find the longest beginning that unpacks.
    good, bad = 0, len(data) + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            _unpacked(data[:middle], packing)
            good = middle
        except (zlib.error, zstandard.ZstdError):
            bad = middle
    return _unpacked(data[:good], packing), False


def _is_array(content: bytes) -> bool:
    try:
        json.loads(content.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        return False
    return True
