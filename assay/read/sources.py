"""Files → raw records: lines, array elements, rows of CSV and of tables. Nothing long is held.

What a record means is for ``formats``. Offsets count decompressed bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from assay.core.errors import InputFault, UserMistake
from assay.read.arrow_messages import CONTINUATION, FILE_MAGIC
from assay.read.csv_rows import (
    DELIMITERS,
    SAMPLE_BYTES,
    SAMPLE_ROWS,
    BadRow,
    Columns,
    CutRow,
    Header,
    RowSplitter,
    cells_of,
    header_of,
    names_of,
)
from assay.read.damage import DamagedTable
from assay.read.json_values import ValueSplitter, is_json
from assay.read.not_chat import why_file_is_no_chat, why_no_chat
from assay.read.parquet_footer import MAGIC as PARQUET_MAGIC
from assay.read.streams import (
    BOM,
    CutShortError,
    compression_of,
    plain,
    stream,
    why_zstd_is_not_read,
    without_bom,
)
from assay.read.tables import Cut, Lost, check_table, decoder_kept, read_rows
from assay.storage.regular import open_regular

#: A longer record is quarantined and never held in memory.
MAX_RECORD_BYTES = 32 << 20

_HEAD_BYTES = 1 << 16
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
CSV_ENDINGS = (".csv", ".tsv")
TABLE_ENDINGS = {"parquet": (".parquet",), "arrow": (".arrow", ".feather")}
COMPRESSION_ENDINGS = (".gz", ".zst", ".zstd")
KNOWN_ENDINGS = (
    *JSON_ENDINGS,
    *(ending + packed for ending in JSON_ENDINGS for packed in COMPRESSION_ENDINGS),
    *CSV_ENDINGS,
    *(ending + packed for ending in CSV_ENDINGS for packed in COMPRESSION_ENDINGS),
    *chain.from_iterable(TABLE_ENDINGS.values()),
)

#: The containers of tables that are decoded by a process of its own, and how their files begin and are named.
_TABLES = {"parquet": (PARQUET_MAGIC,), "arrow": (FILE_MAGIC, CONTINUATION)}
_NAMES = {"parquet": "not a Parquet file", "arrow": "not an Arrow file"}

#: Reason code for the place where a file is cut short. What follows is lost.
CUT_SHORT = "cut_short"
#: Reason code for a Parquet row that cannot be read. Its place is that of its row group.
DAMAGED_ROW_GROUP = "damaged_row_group"


class RawRecord(NamedTuple):
    """One nonblank line, array element or Parquet row, as it stands in its file."""

    line: int
    """The line, element or row, from 1."""
    offset: int
    length: int
    """Bytes without the line end or comma."""
    data: bytes
    """The bytes; empty where ``problem`` says why they are not held."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and how records are packed in it."""

    path: str
    container: str
    """``lines``, ``array``, ``values`` (JSON values one after the other), ``parquet``, ``arrow``,
    or one of ``DELIMITERS``."""
    compression: str
    """``none``, ``gzip`` or ``zstd``."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file's size, time and inode. An equal stamp later means that nobody changed the file meanwhile."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, path: str) -> Stamp:
        """The file's present stamp; OSError where there is no file."""
        found = os.stat(path)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


class _Cells(NamedTuple):
    """One row of a CSV, or why it has no cells."""

    line: int
    last_line: int
    offset: int
    length: int
    cells: list[str] | BadRow


def sniff(path: str) -> Source:
    """How records are packed in the file at ``path``. Its magic bytes count for more than its name.

    UserMistake where nothing of it can be read; OSError as ``open_regular`` raises it.
    """
    with open_regular(path) as file:
        start = file.read(16)
    if refused := why_file_is_no_chat(path):
        raise UserMistake(f"{path}: {refused}")
    compression = compression_of(start)
    if compression == "zstd" and (refused := why_zstd_is_not_read(path)):
        raise UserMistake(f"{path}: {refused}")
    for container, magics in _TABLES.items():
        if start.startswith(magics) and compression == "none":
            try:
                check_table(path)
            except DamagedTable as error:
                raise UserMistake(f"{path}: {_NAMES[container]} that can be read: {error}") from error
            return Source(path, container, compression)
    name = path.lower()
    for packed in COMPRESSION_ENDINGS:
        name = name.removesuffix(packed)
    for container in _TABLES:
        if name.endswith(TABLE_ENDINGS[container]):
            raise UserMistake(f"{path}: {_NAMES[container]}, though its name says so{_if_empty(start)}.")
    if not start and path.lower().endswith(COMPRESSION_ENDINGS):
        raise UserMistake(f"{path}: is not compressed, though its name says so{_if_empty(start)}.")
    head = _head(path, compression)
    if compression != "none" and (refused := why_no_chat(head)):
        raise UserMistake(f"{path}: {refused}")
    if compression == "none" and path.lower().endswith(COMPRESSION_ENDINGS) and not _is_text(head):
        raise UserMistake(f"{path}: is not compressed, though its name says so, and is not text.")
    if name.endswith(CSV_ENDINGS) and head.removeprefix(BOM).strip() and not _begins_as_json(head):
        return Source(path, _header(Source(path, "csv", compression), head).container, compression)
    return Source(path, _container(name, head), compression)


def _if_empty(start: bytes) -> str:
    """What a message adds if the file has no bytes, as after an interrupted copy."""
    return "" if start else ": it has no bytes. Copy it again, or remove it"


def _begins_as_json(head: bytes) -> bool:
    return _JSON_BEGINNING.match(head.removeprefix(BOM)) is not None


_JSON_BEGINNING = re.compile(rb'\s*(?:\{\s*["}\n]|\[\s*[\[{"\]\n])')


def _header(source: Source, head: bytes) -> Header:
    """The delimiter and the names in the first line of a CSV or TSV; UserMistake where it has none."""
    text = head.removeprefix(BOM)
    if b"\n" not in text and b"\r" in text.rstrip(b"\r"):
        raise UserMistake(
            f"{source.path}: its lines end in CR alone. Convert it: `tr '\\r' '\\n' < FILE > NEW`."
        )
    header = header_of(text, source.path.lower())
    if isinstance(header, BadRow):
        raise UserMistake(
            f"{source.path}: its first line, which names the columns, cannot be read ({header.reason})."
        )
    return header


def column_names(source: Source) -> tuple[str, ...]:
    """The names in the first line of a CSV or TSV; empty for another file, and for one without a line."""
    if source.container not in DELIMITERS:
        return ()
    return _header(source, _head(source.path, source.compression)).names


def _is_text(head: bytes) -> bool:
    """Whether a file with this beginning may be UTF-8 text. Its last character may be cut."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True


def _head(path: str, compression: str) -> bytes:
    head = b""
    try:
        for chunk in stream(path, compression):
            head += chunk
            if len(head) >= _HEAD_BYTES:
                break
    except CutShortError:
        pass
    return head


def _container(name: str, head: bytes) -> str:
    text = head.removeprefix(BOM).lstrip()
    first_line, newline, following = text.partition(b"\n")
    if name.endswith((".jsonl", ".ndjson")):
        # Some such files are one array. An array on a line of its own, with lines after it, is a bad line.
        goes_on = first_line.rstrip().endswith((b"[", b"{", b",", b":"))
        goes_on = goes_on or following.lstrip().startswith((b",", b"]")) or not following.strip()
        return "array" if text.startswith(b"[") and goes_on else "lines"
    if text.startswith(b"["):
        return "array"
    # Where an object spans lines, its first line ends in an opening bracket or a comma; a JSON line does not.
    if newline and first_line.rstrip().endswith((b"{", b"[", b",", b":")):
        return "values"
    return "lines"


class RawRecords:
    """The raw records of one shard, in order. After iteration, ``lines`` and ``complete`` are known.

    With ``length`` None it reads to the end. Only uncompressed lines may begin at another ``offset`` than 0.
    """

    def __init__(
        self,
        source: Source,
        *,
        offset: int = 0,
        length: int | None = None,
        first_line: int = 1,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ):
        self.lines = 0
        """Lines, elements or rows read so far, blank lines included."""
        self.why_incomplete: str | None = None
        """Why the file is cut short or damaged, once that is found. A record reports it too."""
        self._source = source
        self._offset = offset
        self._length = length
        self._first_line = first_line
        self._limit = max_record_bytes
        self._last_line = 0
        """The last line that is split off; it is counted once its row is taken."""
        self._cut: str | None = None
        """Why the stream is cut short, once that is found."""

    @property
    def complete(self) -> bool:
        """False once the file is found to be cut short or damaged."""
        return self.why_incomplete is None

    def __iter__(self) -> Iterator[RawRecord]:
        if self._source.container in _TABLES:
            return self._table_rows()
        if self._source.compression == "none":
            chunks = plain(self._source.path, self._offset, self._length)
        else:
            chunks = stream(self._source.path, self._source.compression)
        if self._source.container == "lines":
            return self._split_lines(chunks)
        if self._source.container in DELIMITERS:
            return self._csv_rows(chunks, DELIMITERS[self._source.container])
        return self._split_values(chunks, bracketed=self._source.container == "array")

    def _until_cut(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks. Where they are cut short, put the reason into ``_cut`` after the last one."""
        try:
            yield from chunks
        except CutShortError as error:
            self._cut = str(error)

    def _too_long(self, length: int) -> str:
        return f"line_too_long: {length} bytes; at most {self._limit} are held"

    def _split_lines(self, chunks: Iterator[bytes]) -> Iterator[RawRecord]:
        line, start, limit = self._first_line, self._offset, self._limit
        held: list[bytes] = []
        # Bytes of the line so far; more than ``held`` has once the line is too long.
        begun = 0
        if start == 0:
            chunks, bom_bytes = without_bom(chunks)
            start += bom_bytes
        for chunk in self._until_cut(chunks):
            ended = chunk.split(b"\n")
            tail = ended.pop()
            for data in ended:
                size = len(data)
                if begun:
                    size += begun
                    if size <= limit:
                        data = b"".join((*held, data))
                    held.clear()
                    begun = 0
                # Count before the yield: a caller that stops after this record has read its line.
                self.lines += 1
                if size > limit:
                    yield RawRecord(line, start, size, b"", self._too_long(size))
                elif data and not data.isspace():
                    if data[-1] == 13:  # \r
                        data = data[:-1]
                    yield RawRecord(line, start, len(data), data)
                line += 1
                start += size + 1
            if tail:
                begun += len(tail)
                if begun <= limit:
                    held.append(tail)
                else:
                    held.clear()
        cut = self._cut
        if begun:
            self.lines += 1
            data = b"".join(held)
            if begun > limit:
                yield RawRecord(line, start, begun, b"", self._too_long(begun))
            elif not data.isspace():
                if cut is not None and not is_json(data):
                    yield self._cut_record(line, start, begun, cut)
                    return
                data = data.removesuffix(b"\r")
                yield RawRecord(line, start, len(data), data)
            line += 1
        if cut is not None:
            yield self._cut_record(line, start + begun, 0, cut)

    def _cut_record(self, line: int, offset: int, length: int, why: str) -> RawRecord:
        """The record that reports that the file is cut short here; its length is 0 where nothing is left."""
        self.why_incomplete = f"is cut short: {why}"
        return RawRecord(line, offset, length, b"", f"{CUT_SHORT}: {why}")

    def _split_values(self, chunks: Iterator[bytes], *, bracketed: bool) -> Iterator[RawRecord]:
        chunks, bom_bytes = without_bom(chunks)
        splitter = ValueSplitter(bom_bytes, bracketed=bracketed, limit=self._limit)
        for chunk in self._until_cut(chunks):
            for offset, length, data in splitter.feed(chunk):
                self.lines += 1
                too_long = None if data else self._too_long(length)
                yield RawRecord(self.lines, offset, length, data, too_long)
        cut = self._cut
        if bracketed and cut is None and not splitter.closed:
            cut = (
                "the JSON array has no closing bracket, or a quote or bracket in this element is not "
                "closed and takes what follows with it"
            )
        end = splitter.end
        rest = splitter.unfinished()
        if rest is not None:
            offset, length, data = rest
            self.lines += 1
            problem: str | None = None
            if not data:
                problem = self._too_long(length)
            elif splitter.closed:
                problem = "trailing_data: something follows the JSON array's closing bracket"
            elif not is_json(data):
                cut = cut or "the file ends in the middle of a JSON value"
                yield self._cut_record(self.lines, offset, length, cut)
                return
            yield RawRecord(self.lines, offset, length, b"" if problem else data, problem)
        if cut is not None:
            yield self._cut_record(self.lines + 1, end, 0, cut)

    def _csv_rows(self, chunks: Iterator[bytes], delimiter: str) -> Iterator[RawRecord]:
        rows = self._cells(chunks, delimiter)
        header = next(rows, None)
        if header is None:
            return
        sample: list[_Cells] = []
        held = 0
        while len(sample) < SAMPLE_ROWS and held < SAMPLE_BYTES and (row := next(rows, None)):
            sample.append(row)
            held += row.length
        if isinstance(header.cells, BadRow):
            sample.insert(0, header)
            columns = Columns((), ())
        else:
            columns = Columns(
                names_of(header.cells), [row.cells for row in sample if not isinstance(row.cells, BadRow)]
            )
        for row in chain(sample, rows):
            self.lines = max(row.last_line, self.lines)
            data = row.cells if isinstance(row.cells, BadRow) else columns.row(row.cells)
            if isinstance(data, BadRow):
                yield RawRecord(row.line, row.offset, row.length, b"", data.reason)
            else:
                yield RawRecord(row.line, row.offset, row.length, data)
        self.lines = self._last_line

    def _cells(self, chunks: Iterator[bytes], delimiter: str) -> Iterator[_Cells]:
        """Yield every row that is not blank, the header too, and a last one where the file is cut short."""
        chunks, bom_bytes = without_bom(chunks)
        splitter = RowSplitter(delimiter, offset=bom_bytes, limit=self._limit)
        line = 1
        for chunk in self._until_cut(chunks):
            for row in splitter.feed(chunk):
                if row.data or row.length > self._limit:
                    yield self._placed(row, line, delimiter)
                line += row.lines
                self._last_line = line - 1
        cut = self._cut
        if cut is None and splitter.in_quotes:
            cut = "a quote in this row is not closed and takes what follows with it"
        end = splitter.end
        rest = splitter.unfinished()
        if rest is not None:
            self._last_line = line + rest.lines - 1
            if rest.length <= self._limit and cut is not None:
                self.why_incomplete = f"is cut short: {cut}"
                yield _Cells(line, self._last_line, rest.offset, rest.length, BadRow(f"{CUT_SHORT}: {cut}"))
                return
            if rest.data or rest.length > self._limit:
                yield self._placed(rest, line, delimiter)
            line += rest.lines
        if cut is not None:
            self.why_incomplete = f"is cut short: {cut}"
            yield _Cells(line, self._last_line, end, 0, BadRow(f"{CUT_SHORT}: {cut}"))

    def _placed(self, row: CutRow, line: int, delimiter: str) -> _Cells:
        too_long = row.length > self._limit
        cells = BadRow(self._too_long(row.length)) if too_long else cells_of(row.data, delimiter)
        return _Cells(line, line + row.lines - 1, row.offset, row.length, cells)

    def _table_rows(self) -> Iterator[RawRecord]:
        path = self._source.path
        try:
            for first, found in read_rows(path):
                if isinstance(found, Lost):
                    yield from self._lost_rows(first, found)
                    continue
                if isinstance(found, Cut):
                    yield self._cut_record(first + 1, first, 0, found.why)
                    continue
                for row, data in enumerate(found, first):
                    self.lines = row + 1
                    problem = self._too_long(len(data)) if len(data) > self._limit else None
                    yield RawRecord(row + 1, row, len(data), b"" if problem else data, problem)
        except DamagedTable as error:
            raise InputFault(f"{path}: can no longer be read: {error}") from error

    def _lost_rows(self, first: int, lost: Lost) -> Iterator[RawRecord]:
        self.why_incomplete = self.why_incomplete or f"is damaged: {lost.why}"
        for row in range(first, first + lost.rows):
            self.lines = row + 1
            yield RawRecord(row + 1, lost.offset, lost.length, b"", f"{DAMAGED_ROW_GROUP}: {lost.why}")


def read_originals(path: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of each (offset, length) of the decompressed file. Spans ascend and do not overlap.

    A span may be part of a record, so a long record can be read in pieces. In a Parquet file the offset is
    the row, from 0, and the bytes are the row as JSON. A Parquet file that has become shorter ends the
    iteration early. Rows of a ``DAMAGED_ROW_GROUP`` have no original.
    """
    with decoder_kept():
        yield from _read_originals(sniff(path), spans)


def _read_originals(source: Source, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    path = source.path
    if source.container in _TABLES:
        yield from _original_rows(path, spans)
    elif source.compression == "none":
        with open_regular(path) as file:
            for offset, length in spans:
                file.seek(offset)
                yield file.read(length)
    else:
        yield from _slices(stream(path, source.compression), spans)


def _original_rows(path: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    # A span of no bytes is the place where the file is cut short, behind the last row.
    wanted = [offset for offset, length in spans if length]
    at = 0
    for first, found in read_rows(path, wanted) if wanted else ():
        if isinstance(found, Lost | Cut):
            continue
        while at < len(wanted) and wanted[at] < first + len(found):
            if wanted[at] < first:
                return
            yield found[wanted[at] - first]
            at += 1
    if at == len(wanted) < len(spans):
        yield b""


def _slices(chunks: Iterator[bytes], spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    buffer, buffer_offset = b"", 0
    for offset, length in spans:
        parts: list[bytes] = []
        missing = length
        while missing:
            if offset >= buffer_offset + len(buffer):
                buffer_offset += len(buffer)
                try:
                    buffer = next(chunks, b"")
                except CutShortError:
                    buffer = b""
                if not buffer:
                    break
                continue
            part = buffer[offset - buffer_offset : offset - buffer_offset + missing]
            parts.append(part)
            offset += len(part)
            missing -= len(part)
        yield b"".join(parts)
