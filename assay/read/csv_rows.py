"""CSV and TSV → rows as JSON objects: where each row lies, and its cells under the names of the first line.

Quotes are those of RFC 4180: a cell in quotes may hold delimiters, line ends, and ``""`` for a quote. A quote
inside a cell that does not begin with one is text. Python's ``csv`` reads the same, but after a field that is
too long it goes on in the middle of it, and it knows no places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from assay.core.schema import ATTRIBUTES

#: The containers of ``sources`` that hold cells, and what stands between the cells.
DELIMITERS = {"csv": ",", "tsv": "\t", "semicolon": ";"}

#: The first rows decide which columns hold lists.
SAMPLE_ROWS = 32
SAMPLE_BYTES = 4 << 20

#: Names that have lists in other files: their cells are JSON where all cells of the first rows are.
_LISTS = frozenset(
    {
        *("messages", "conversations", "conversation", "history", "tools", "labels", "answers"),
        *("responses", "completions", "generations", "outputs", "all_generated_responses"),
    }
)
#: Columns whose cells are numbers where they look like numbers: labels by people. An answer "4" is a text.
_NUMBERS = frozenset((*ATTRIBUTES, "preference_strength", "overall_preference", "score", "rating"))
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_SPEAKERS = ("role", "from")

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder().decode
_DECODE_RAW = msgspec.json.Decoder(msgspec.Raw).decode

BAD_QUOTE = "bad_quote"
RAGGED_ROW = "ragged_row"


class CutRow(NamedTuple):
    """One row as it stands in the file."""

    offset: int
    length: int
    """Bytes without the line end."""
    lines: int
    """The lines that it takes: more than one where a cell holds line ends."""
    data: bytes
    """Empty where the row is blank, or too long to be held."""


# Where the scan is within a row: at the beginning of a cell, in a cell without quotes (or behind its closing
# quote), in quotes, or behind a quote that ends them unless another follows.
_CELL, _PLAIN, _QUOTED, _QUOTE = range(4)


class RowSplitter:
    """Finds where rows begin and end. A row that is too long is passed over, and not held."""

    def __init__(self, delimiter: str, *, offset: int, limit: int) -> None:
        mark = re.escape(delimiter.encode())
        cell = rb'(?:"(?:[^"]++|"")*+"[^%b\n]*+|[^"%b\n][^%b\n]*+|)' % (mark, mark, mark)
        self._whole_row = re.compile(rb"%b(?:%b%b)*+\n" % (cell, mark, cell))
        self._plain = re.compile(rb"[^%b\n]*+" % mark)
        self._limit = limit
        self._buffer = b""
        self._buffer_offset = offset
        # Of the present row: its place in the buffer, how far it is scanned, and what is no longer held.
        self._start = self._position = 0
        self._state = _CELL
        self._dropped = self._dropped_lines = 0

    @property
    def in_quotes(self) -> bool:
        """Whether what was fed so far ends inside a cell's quotes."""
        return self._state == _QUOTED

    @property
    def end(self) -> int:
        """The offset at which the input so far ends."""
        return self._buffer_offset + len(self._buffer)

    def feed(self, chunk: bytes) -> Iterator[CutRow]:
        """Yield each row that ends in ``chunk``."""
        self._buffer += chunk
        while True:
            whole = None
            if self._position == self._start and not self._dropped:
                whole = self._whole_row.match(self._buffer, self._start)
            end = whole.end() if whole else self._scanned()
            if not end:
                break
            yield self._row(end - 1, end)
        keep_from = self._start
        if self._position - self._start + self._dropped > self._limit:
            keep_from = self._position
            self._dropped += keep_from - self._start
            self._dropped_lines += self._buffer.count(b"\n", self._start, keep_from)
        self._buffer = self._buffer[keep_from:]
        self._buffer_offset += keep_from
        self._position -= keep_from
        self._start = 0

    def unfinished(self) -> CutRow | None:
        """What follows the last line end; None where nothing does."""
        if not self._dropped and self._start == len(self._buffer):
            return None
        return self._row(len(self._buffer), len(self._buffer))

    def _scanned(self) -> int:
        """Scan on to the row's end. Returns the place after its line end; 0 where that is still to come."""
        buffer, at = self._buffer, self._position
        while at < len(buffer):
            if self._state == _QUOTED:
                found = buffer.find(b'"', at)
                at = len(buffer) if found < 0 else found + 1
                self._state = _QUOTED if found < 0 else _QUOTE
            elif self._state == _PLAIN:
                found_end = self._plain.match(buffer, at)
                assert found_end is not None
                at = found_end.end()
                if at < len(buffer):
                    self._state = _CELL
                    at += 1
                    if buffer[at - 1] == 10:  # \n
                        return at
            else:
                quoted = buffer[at] == 34  # a quote: the first of a cell, or the second of two
                at += quoted
                self._state = _QUOTED if quoted else _PLAIN
        self._position = at
        return 0

    def _row(self, end: int, following: int) -> CutRow:
        data = self._buffer[self._start : end]
        length = self._dropped + len(data)
        lines = self._dropped_lines + data.count(b"\n") + 1
        offset = self._buffer_offset + self._start - self._dropped
        if data.endswith(b"\r"):
            data = data[:-1]
            length -= 1
        if length > self._limit:
            data = b""
        self._start = self._position = following
        self._state = _CELL if following > end else self._state
        self._dropped = self._dropped_lines = 0
        return CutRow(offset, length, lines, b"" if data.isspace() and b"\t" not in data else data)


@dataclass(frozen=True, slots=True)
class BadRow:
    """Why a row has no cells, as a reason with its code."""

    reason: str


def cells_of(data: bytes, delimiter: str) -> list[str] | BadRow:
    """The cells of one row without its line end.

    >>> cells_of(b'a,"b, ""c"" d",', ",")
    ['a', 'b, "c" d', '']
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return BadRow(f"not_utf8: {error.reason} at byte {error.start} of the row")
    if '"' not in text:
        return text.split(delimiter)
    cells: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            quoted = _QUOTED_CELL.match(text, at)
            if quoted is None or not (text.startswith(delimiter, quoted.end()) or quoted.end() == len(text)):
                return BadRow(f"{BAD_QUOTE}: text follows the closing quote of cell {len(cells) + 1}")
            cells.append(quoted[1].replace('""', '"'))
            at = quoted.end()
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            cells.append(text[at:end])
            at = end
        if at == len(text):
            return cells
        at += 1


_QUOTED_CELL = re.compile(r'"((?:[^"]++|"")*+)"')


@dataclass(frozen=True, slots=True)
class Header:
    """What the first line of a file shows."""

    container: str
    """A key of ``DELIMITERS``."""
    names: tuple[str, ...]


def header_of(head: bytes, name: str) -> Header | BadRow:
    """The header of a file that begins with ``head``. The whole first line must lie in it.

    The delimiter is the one that cuts the first line into most cells. Where none cuts it, the file's name
    decides.
    """
    headers: list[Header] = []
    bad: list[BadRow] = []
    for container in sorted(DELIMITERS, key=lambda one: one != ("tsv" if ".tsv" in name else "csv")):
        splitter = RowSplitter(DELIMITERS[container], offset=0, limit=len(head))
        rows = (row.data for row in (*splitter.feed(head), splitter.unfinished()) if row and row.data)
        cells = cells_of(next(rows, b""), DELIMITERS[container])
        if isinstance(cells, BadRow):
            bad.append(cells)
            continue
        headers.append(Header(container, tuple(names_of(cells))))
    if not headers:
        return bad[0]
    header = max(headers, key=lambda one: len(one.names))
    for number, column in enumerate(header.names):
        if column in header.names[:number]:
            return BadRow(f"two columns have the name {column!r}")
    return header


def names_of(cells: Sequence[str]) -> list[str]:
    """The names of the columns: a column without a name is ``column_N``, counted from 1."""
    return [cell.strip() or f"column_{number}" for number, cell in enumerate(cells, 1)]


class Columns:
    """The columns of a file, and which of them hold lists: makes JSON objects of rows.

    An empty cell is null. Other cells are texts, but for columns whose first cells are all JSON lists of
    messages, or all JSON under a name that is a list's elsewhere, and for numbers under a label's name.
    """

    def __init__(self, names: Sequence[str], sample: Sequence[Sequence[str]]) -> None:
        self._names = names
        columns = list(zip(*(row for row in sample if len(row) == len(names)), strict=True))
        self._lists = [
            bool(columns) and _hold_lists(name, [cell for cell in columns[number] if cell.strip()])
            for number, name in enumerate(names)
        ]

    def row(self, cells: Sequence[str]) -> bytes | BadRow:
        """The row as a JSON object."""
        if len(cells) != len(self._names):
            return BadRow(f"{RAGGED_ROW}: {len(cells)} cells, where the first line names {len(self._names)}")
        values: dict[str, str | msgspec.Raw | None] = {}
        for name, cell, is_list in zip(self._names, cells, self._lists, strict=True):
            value: str | msgspec.Raw | None = cell or None
            if value is not None and (
                (is_list and _is_json(cell)) or (name.lower() in _NUMBERS and _NUMBER.fullmatch(cell))
            ):
                value = msgspec.Raw(cell.encode())
            values[name] = value
        return _ENCODE(values)


def _hold_lists(name: str, cells: Sequence[str]) -> bool:
    if name.lower() in _LISTS:
        return bool(cells) and all(cell.lstrip()[0] in "[{" and _is_json(cell) for cell in cells)
    return bool(cells) and all(map(_is_list_of_messages, cells))


def _is_json(cell: str) -> bool:
    try:
        _DECODE_RAW(cell.encode())
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _is_list_of_messages(cell: str) -> bool:
    if not cell.lstrip().startswith("["):
        return False
    try:
        found = _DECODE(cell.encode())
    except (msgspec.DecodeError, RecursionError):
        return False
    return bool(found) and all(
        isinstance(one, dict) and any(isinstance(one.get(name), str) for name in _SPEAKERS) for one in found
    )
