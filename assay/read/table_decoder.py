"""The process that decodes Parquet and Arrow for ``assay.read.tables``, which runs it as ``python -m``.

One flipped bit can make polars panic and print to the console, return too few rows, or end the whole process
(an allocation of absurd size, SIGABRT). In a process of its own, that costs one row group and nothing else.

A request is one line of JSON on standard input. A reply is a letter, a length (8 bytes) and so many bytes:

``{"file": PATH}``              use this file           → ``G`` its groups, ``F`` why it cannot be read
``{"first": N, "last": N}``     decode these groups     → ``S`` nothing, ``F`` why they cannot be read
``{"more": true}``              send decoded rows       → ``R`` one row per line, ``E`` no more rows

A row is JSON, or ``!`` and why the row cannot be read. Any reply can be ``O`` with a number of ``errno``:
then the system is at fault, not the file.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec
import polars as pl

from assay.read.arrow_table import ArrowTable
from assay.read.damage import DamagedTable
from assay.read.parquet_footer import MAGIC as PARQUET_MAGIC
from assay.read.parquet_table import ParquetTable, leaves
from assay.storage.regular import open_regular

_BATCH_ROWS = 1024
_BATCH_BYTES = 1 << 20
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
_PANIC = re.compile(r'JoinError::Panic\(Id\(\d+\), "(.*?)"')
_MOST_WORDS = 200

# Limits of address space and CPU time: a fixed part, and a part per byte of the group. Only damaged data ask
# for more. Decoding takes about one nanosecond and two bytes per unpacked byte.
_ADDRESS_BYTES = 8 << 30
_ADDRESS_BYTES_PER_BYTE = 32
_CPU_SECONDS = 60
_BYTES_PER_CPU_SECOND = 1 << 20

_UNDECODABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    DamagedTable,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class TablePart(Protocol):
    """Rows that are decoded together: a row group of Parquet, a record batch of Arrow."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def offset(self) -> int:
        """Where they begin in the file."""

    @property
    def length(self) -> int:
        """The bytes that they take there."""


class Table(Protocol):
    """An open file."""

    unit: str
    """What a group is called."""

    @property
    def groups(self) -> Sequence[TablePart]:
        """Its groups, in order."""

    @property
    def cut(self) -> str | None:
        """Why rows behind the last group are missing."""

    def bytes_of(self, first: int, last: int) -> int:
        """How many bytes groups ``first`` to ``last`` take when they are decoded, roughly."""

    def decoded(self, first: int, last: int) -> pl.DataFrame:
        """The rows of groups ``first`` to ``last``; DamagedTable where they are not all there."""


class _Decoder:
    """One file, and the rows that are decoded and not yet sent."""

    def __init__(self) -> None:
        self._table: Table | None = None
        self._rows: Iterator[bytes] = iter(())

    def answered(self, request: dict[str, Any]) -> tuple[bytes, bytes]:
        """The reply's letter and content."""
        try:
            if "file" in request:
                return b"G", self._opened(request["file"])
            if "first" in request:
                self._decode(request["first"], request["last"])
                return b"S", b""
            rows = self._batch()
            return (b"R", rows) if rows else (b"E", b"")
        except OSError as error:
            # polars raises one without a number for packed data that it cannot unpack.
            return (b"F", _words(error).encode()) if error.errno is None else (b"O", b"%d" % error.errno)
        except _UNDECODABLE as error:
            if found := _SYSTEM_ERROR.search(str(error)):
                return b"O", found[1].encode()
            return b"F", _words(error).encode()

    def _opened(self, path: str) -> bytes:
        self._table, self._rows = None, iter(())
        with open_regular(path) as file:
            magic = file.read(len(PARQUET_MAGIC))
        self._table = table = ParquetTable(path) if magic == PARQUET_MAGIC else ArrowTable(path)
        groups = [(group.rows, group.offset, group.length) for group in table.groups]
        return msgspec.json.encode({"unit": table.unit, "cut": table.cut, "groups": groups})

    def _decode(self, first: int, last: int) -> None:
        """Decode groups ``first`` to ``last`` and compare them with what the file states."""
        assert self._table is not None
        self._rows = iter(())
        _limit_itself(self._table.bytes_of(first, last))
        self._rows = _encoded(self._table.decoded(first, last))

    def _batch(self) -> bytes:
        batch: list[bytes] = []
        size = 0
        for row in self._rows:
            batch.append(row)
            size += len(row)
            if len(batch) == _BATCH_ROWS or size >= _BATCH_BYTES:
                break
        return b"\n".join(batch)


def _encoded(frame: pl.DataFrame) -> Iterator[bytes]:
    """Yield each row as JSON, or as ``!`` and the reason where polars or msgspec cannot encode it."""
    encode = _encode_numbers_or_none if _holds_no_numbers(frame) else msgspec.json.Encoder().encode
    for start in range(0, len(frame), _BATCH_ROWS):
        batch = frame.slice(start, _BATCH_ROWS)
        try:
            rows = list(map(encode, batch.iter_rows(named=True)))
        except _UNDECODABLE:
            rows = [_one_encoded(batch, number) for number in range(len(batch))]
        yield from rows


def _holds_no_numbers(frame: pl.DataFrame) -> bool:
    """Whether a column holds NaN or an infinity, which JSON does not have."""
    floats = (leaf for column in frame for leaf in leaves(column) if leaf.dtype.is_float())
    return any(not leaf.is_finite().all() for leaf in floats)


def _encode_numbers_or_none(row: dict[str, Any]) -> bytes:
    """The row as Python's json writes it, ``NaN`` and ``Infinity`` included, as in a line of JSON."""
    if (encoded := msgspec.json.encode(row)).find(b"null") < 0:
        return encoded
    plain = msgspec.to_builtins(row)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


def _one_encoded(batch: pl.DataFrame, number: int) -> bytes:
    try:
        return msgspec.json.encode(batch.row(number, named=True))
    except _UNDECODABLE as error:
        return b"!" + _words(error).encode()


def _words(error: BaseException) -> str:
    """The error's first line. For a panic without the task's number, so that it is the same each time."""
    text = str(error)
    if panic := _PANIC.search(text):
        text = panic[1]
    return " ".join(text.split("\n")[0].split())[:_MOST_WORDS] or type(error).__name__


def _limit_itself(size: int) -> None:
    """Limit this process to what decoding so many bytes can need. The system ends it beyond that."""
    taken = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _limit(resource.RLIMIT_CPU, int(taken) + _CPU_SECONDS + size // _BYTES_PER_CPU_SECOND)
    with suppress(FileNotFoundError):  # only Linux has /proc
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
        held = pages * resource.getpagesize()
        _limit(resource.RLIMIT_AS, held + _ADDRESS_BYTES + size * _ADDRESS_BYTES_PER_BYTE)


#: The limits that the run was started with.
_ALLOWED = {what: resource.getrlimit(what) for what in (resource.RLIMIT_CPU, resource.RLIMIT_AS)}


def _limit(what: int, limit: int) -> None:
    soft, hard = _ALLOWED[what]
    resource.setrlimit(what, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    decoder = _Decoder()
    for line in requests:
        letter, content = decoder.answered(json.loads(line))
        replies.write(letter + len(content).to_bytes(8, "big"))
        replies.write(content)
        replies.flush()


def main() -> None:
    """Serve until standard input or the parent process ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    replies = os.fdopen(os.dup(1), "wb")
    # What a library prints to standard output must not mix with the replies.
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
