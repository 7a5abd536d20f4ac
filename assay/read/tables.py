"""Rows of Parquet and Arrow files; where a part cannot be decoded, how many rows are lost.

Another process (``table_decoder``) decodes, because damaged data can end that process. A group is what is
decoded together: a row group of Parquet, a record batch of Arrow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from assay.core.errors import AssayError
from assay.read.damage import DamagedTable

# Small row groups are decoded together, up to this many rows or packed bytes.
_SPAN_ROWS = 16_384
_SPAN_BYTES = 8 << 20
# A process that closed its output is about to end. Wait this long for its exit code.
_DYING_SECONDS = 10

#: Signals that a process gets for its own actions. Any other signal says nothing about the file.
_OWN_SIGNALS = (
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGTRAP,
    signal.SIGXCPU,
)


@dataclass(frozen=True, slots=True)
class Lost:
    """Consecutive rows of a file that cannot be read."""

    rows: int
    offset: int
    """Where their group begins in the file."""
    length: int
    """The length of their group in bytes."""
    why: str


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of a file that is cut short: nobody can know how many rows are missing."""

    why: str


class _Group(NamedTuple):
    rows: int
    offset: int
    length: int


class _Opened(NamedTuple):
    """What the decoder says of a file."""

    unit: str
    """What a group is called."""
    groups: list[_Group]
    cut: str | None


def check_table(path: str) -> None:
    """Raise DamagedTable where the file's footer or schema is damaged, so that nothing can be read."""
    with _decoder() as decoder:
        decoder.open(path)


def read_rows(
    path: str, wanted: Sequence[int] | None = None
) -> Iterator[tuple[int, list[bytes] | Lost | Cut]]:
    """Yield (number of the first row from 0, rows as JSON objects), in order, some rows at a time.

    A ``Lost`` stands for rows that cannot be read, and a ``Cut`` at the end for rows that are missing.
    ``wanted`` holds ascending row numbers; groups without any of them are skipped, and so is a ``Cut``.
    DamagedTable where nothing can be read; AssayError where decoding fails for a reason outside of the file.
    """
    with _decoder() as decoder:
        opened = decoder.open(path)
        first_row = 0
        for first, last in _spans(opened.groups):
            rows = sum(group.rows for group in opened.groups[first : last + 1])
            if wanted is None or _any_within(wanted, first_row, first_row + rows):
                yield from _span_rows(decoder, opened, first, last, first_row)
            first_row += rows
        if opened.cut is not None and wanted is None:
            yield first_row, Cut(opened.cut)


def _any_within(wanted: Sequence[int], begin: int, end: int) -> bool:
    at = bisect_left(wanted, begin)
    return at < len(wanted) and wanted[at] < end


def _spans(groups: Sequence[_Group]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last group of each span that is decoded together."""
    first = rows = size = 0
    for number, group in enumerate(groups):
        if number > first and (rows + group.rows > _SPAN_ROWS or size + group.length > _SPAN_BYTES):
            yield first, number - 1
            first, rows, size = number, 0, 0
        rows += group.rows
        size += group.length
    if groups:
        yield first, len(groups) - 1


def _span_rows(
    decoder: _Decoder, opened: _Opened, first: int, last: int, first_row: int
) -> Iterator[tuple[int, list[bytes] | Lost]]:
    groups = opened.groups
    try:
        batches = decoder.rows(first, last)
    except DamagedTable as error:
        if first < last:
            for number in range(first, last + 1):
                yield from _span_rows(decoder, opened, number, number, first_row)
                first_row += groups[number].rows
            return
        rows, offset, length = groups[first]
        if rows:
            why = f"{opened.unit} {first + 1} of {len(groups)} cannot be read ({error})"
            yield first_row, Lost(rows, offset, length, why)
        return
    for batch in batches:
        kept: list[bytes] = []
        for row in batch:
            if row.startswith(b"!"):
                if kept:
                    yield first_row, kept
                    first_row += len(kept)
                    kept = []
                group = _group_of(groups, first_row)
                why = f"the row cannot be read ({row[1:].decode()})"
                yield first_row, Lost(1, group.offset, group.length, why)
                first_row += 1
            else:
                kept.append(row)
        if kept:
            yield first_row, kept
            first_row += len(kept)


def _group_of(groups: Sequence[_Group], row: int) -> _Group:
    for group in groups:
        if row < group.rows:
            return group
        row -= group.rows
    raise IndexError(row)


_COMMAND = [sys.executable, "-P", "-m", "assay.read.table_decoder"]

_scopes = 0
_idle: list[_Decoder] = []
_guard = threading.Lock()


@contextmanager
def decoder_kept() -> Iterator[None]:
    """Inside this context one process decodes all files; outside, each file starts a process of its own."""
    global _scopes
    with _guard:
        _scopes += 1
    try:
        yield
    finally:
        with _guard:
            _scopes -= 1
            over = [] if _scopes else _idle[:]
            del _idle[: len(over)]
        for decoder in over:
            decoder.end()


@contextmanager
def _decoder() -> Iterator[_Decoder]:
    with _guard:
        decoder = _idle.pop() if _idle else _Decoder()
    kept = False
    try:
        yield decoder
        kept = True
    except (DamagedTable, GeneratorExit):
        kept = True
        raise
    finally:
        with _guard:
            # An interrupted decoder may have read half a reply: do not keep it.
            keep = kept and _scopes > 0 and not _idle
            if keep:
                _idle.append(decoder)
        if not keep:
            decoder.end()


class _Decoder:
    """The parent's side. It starts the child when needed, and again after a file has ended the child."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._path = ""
        self._owed = 0
        """How many replies were requested and not read yet."""

    def open(self, path: str) -> _Opened:
        """The file's groups; DamagedTable where nothing of it can be read."""
        self._path = path
        letter, content = self._asked({"file": os.path.abspath(path)})
        assert letter == b"G"
        said = json.loads(content)
        return _Opened(said["unit"], [_Group(*group) for group in said["groups"]], said["cut"])

    def rows(self, first: int, last: int) -> Iterator[list[bytes]]:
        """Decode these groups now. Returns their rows, some at a time; DamagedTable where one fails."""
        self._asked({"first": first, "last": last})
        return self._batches()

    def _batches(self) -> Iterator[list[bytes]]:
        # Ask one batch ahead: the child encodes while the parent works.
        self._ask({"more": True})
        while True:
            letter, content = self._reply()
            if letter == b"E":
                return
            self._ask({"more": True})
            yield content.split(b"\n")

    def _asked(self, request: dict[str, object]) -> tuple[bytes, bytes]:
        # Discard the replies, and faults, that an earlier reader did not wait for.
        with suppress(DamagedTable, AssayError, OSError):
            while self._owed:
                self._reply()
        if self._child is None:
            self._start()
            if "file" not in request:
                self._asked({"file": os.path.abspath(self._path)})
        self._ask(request)
        return self._reply()

    def _start(self) -> None:
        source = str(Path(__file__).resolve().parents[2])
        kept = {name: value for name, value in os.environ.items() if name != "RUST_BACKTRACE"}
        self._child = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # polars prints its panics here; the reply says the same.
            stderr=subprocess.DEVNULL,
            env={
                **kept,
                "PYTHONPATH": os.pathsep.join(filter(None, [source, kept.get("PYTHONPATH")])),
                # With more threads, chance decides which of two faults is met first. Rows come no faster.
                "POLARS_MAX_THREADS": "1",
            },
            # Ctrl-C goes to the terminal's whole process group. Only the parent may end the child.
            start_new_session=True,
        )
        self._owed = 0

    def _ask(self, request: dict[str, object]) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        # If the child has ended, there is no reply, and _reply reports it.
        with suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        self._owed += 1

    def _reply(self) -> tuple[bytes, bytes]:
        assert self._child is not None
        assert self._child.stdout is not None
        head = self._child.stdout.read(9)
        size = int.from_bytes(head[1:], "big")
        content = self._child.stdout.read(size) if len(head) == 9 else b""
        if len(head) < 9 or len(content) < size:
            raise self._how_it_ended()
        self._owed -= 1
        letter = head[:1]
        if letter == b"O":
            number = int(content)
            raise OSError(number, os.strerror(number), self._path)
        if letter == b"F":
            raise DamagedTable(content.decode())
        return letter, content

    def _how_it_ended(self) -> Exception:
        code = self.end(wait_seconds=_DYING_SECONDS)
        if -code in _OWN_SIGNALS:
            return DamagedTable(f"decoding it ends in {signal.Signals(-code).name}")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return AssayError(
            f"{self._path}: the process that decodes it {how}. If memory ran out, free some. Run again."
        )

    def end(self, wait_seconds: float = 0) -> int:
        """End the child: wait for it, then kill it. Returns its exit code; 0 if none runs."""
        child, self._child, self._owed = self._child, None, 0
        if child is None:
            return 0
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):
            child.stdin.close()
        child.stdout.close()
        try:
            return child.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()
