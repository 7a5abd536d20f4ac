"""The process that decodes Parquet for ``assay.read.parquet``, which runs it as ``python -m``.

One flipped bit can make polars panic and print to the console, return too few rows, or end the whole process
(an allocation of absurd size, SIGABRT). In a process of its own, that costs one row group and nothing else.

A request is one line of JSON on standard input. A reply is a letter, a length (8 bytes) and so many bytes:

``{"file": PATH}``              use this file           → ``G`` groups as JSON, ``F`` why it cannot be read
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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import polars as pl

from assay.read.parquet_footer import Column, DamagedParquet, Group, check_sums, read_groups
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
    DamagedParquet,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class _Decoder:
    """One file, its groups, and the rows that are decoded and not yet sent."""

    def __init__(self) -> None:
        self._path = ""
        self._groups: tuple[Group, ...] = ()
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
            return b"O", str(error.errno or 0).encode()
        except _UNDECODABLE as error:
            if found := _SYSTEM_ERROR.search(str(error)):
                return b"O", found[1].encode()
            return b"F", _words(error).encode()

    def _opened(self, path: str) -> bytes:
        self._path, self._groups, self._rows = path, (), iter(())
        with open_regular(path) as file:
            self._groups = read_groups(file)
        pl.scan_parquet(path, glob=False).collect_schema()
        return msgspec.json.encode([(group.rows, group.offset, group.length) for group in self._groups])

    def _decode(self, first: int, last: int) -> None:
        """Decode groups ``first`` to ``last`` and compare them with the footer."""
        self._rows = iter(())
        chosen = self._groups[first : last + 1]
        rows = sum(group.rows for group in chosen)
        _limit_itself(sum(group.unpacked_bytes + group.length for group in chosen))
        with open_regular(self._path) as file:
            for group in chosen:
                check_sums(file, group)
        before = sum(group.rows for group in self._groups[:first])
        # Not collect_batches: in polars 2.1 it stops where decoding panics, as if the file ended there.
        frame = pl.scan_parquet(self._path, glob=False).slice(before, rows).collect()
        if len(frame) != rows:
            raise DamagedParquet(f"{len(frame)} rows came out, where the footer states {rows}")
        _check_counts(frame, chosen)
        self._rows = _encoded(frame)

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
    encode = msgspec.json.Encoder().encode
    for start in range(0, len(frame), _BATCH_ROWS):
        batch = frame.slice(start, _BATCH_ROWS)
        try:
            rows = list(map(encode, batch.iter_rows(named=True)))
        except _UNDECODABLE:
            rows = [_one_encoded(batch, number) for number in range(len(batch))]
        yield from rows


def _one_encoded(batch: pl.DataFrame, number: int) -> bytes:
    try:
        return msgspec.json.encode(batch.row(number, named=True))
    except _UNDECODABLE as error:
        return b"!" + _words(error).encode()


def _check_counts(frame: pl.DataFrame, groups: tuple[Group, ...]) -> None:
    """Raise DamagedParquet where a column holds more or fewer values, or bytes, than the footer states.

    Damaged levels of nulls leave the number of rows as it is, but move values to other rows.
    """
    found = [leaf for column in frame for leaf in _leaves(column)]
    if any(len(group.columns) != len(found) for group in groups):
        return  # polars lays out this type otherwise, so the columns cannot be compared
    for number, leaf in enumerate(found):
        columns = [group.columns[number] for group in groups]
        _compare(columns, "values", len(leaf) - leaf.null_count())
        if leaf.dtype in (pl.String, pl.Binary):
            sizes = leaf.str.len_bytes() if leaf.dtype == pl.String else leaf.bin.size()
            _compare(columns, "text_bytes", int(sizes.sum() or 0))


def _compare(columns: list[Column], what: str, found: int) -> None:
    stated = [getattr(column, what) for column in columns]
    if None not in stated and sum(stated) != found:
        raise DamagedParquet(
            f"column {columns[0].name} holds {found} {what.replace('_', ' ')}, where the footer states "
            f"{sum(stated)}"
        )


def _leaves(column: pl.Series) -> Iterator[pl.Series]:
    """Yield the columns inside ``column`` that hold values, in the order of the schema."""
    if isinstance(column.dtype, pl.Struct):
        present = column.drop_nulls()
        for field in column.dtype.fields:
            yield from _leaves(present.struct.field(field.name))
    elif isinstance(column.dtype, pl.List | pl.Array):
        yield from _leaves(column.drop_nulls().explode())
    else:
        yield column


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
