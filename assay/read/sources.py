"""Files → raw records: decompress, split into lines, array elements or Parquet rows, hold nothing long.

What a record means is for ``formats``. Offsets count decompressed bytes.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import msgspec
import zstandard

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
from assay.read.not_chat import why_file_is_no_chat, why_no_chat
from assay.read.parquet_footer import MAGIC as PARQUET_MAGIC
from assay.read.tables import Cut, Lost, check_table, decoder_kept, read_rows
from assay.storage.regular import open_regular

#: A longer record is quarantined and never held in memory.
MAX_RECORD_BYTES = 32 << 20

_READ_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
# A zstd block of 4 bytes can unpack to 128 KiB: small reads bound what one call returns.
_ZSTD_BITE_BYTES = 1 << 12
# The largest window of zstd's own tool (--ultra --long=31). A frame that needs it takes as much memory.
_ZSTD_WINDOW_BYTES = 2 << 30

BOM = b"\xef\xbb\xbf"
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

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A zstd frame that carries no data (RFC 8878, 3.1.2): 0x184D2A50 to 0x184D2A5F, little-endian.
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")

#: The containers of tables that are decoded by a process of its own, and how their files begin and are named.
_TABLES = {"parquet": (PARQUET_MAGIC,), "arrow": (FILE_MAGIC, CONTINUATION)}
_NAMES = {"parquet": "not a Parquet file", "arrow": "not an Arrow file"}

#: Reason code for the place where a file is cut short. What follows is lost.
CUT_SHORT = "cut_short"
#: Reason code for a Parquet row that cannot be read. Its place is that of its row group.
DAMAGED_ROW_GROUP = "damaged_row_group"
# RFC 8878, 3.1.1: magic, descriptor, window, dictionary, content size.
_ZSTD_HEADER_BYTES = 4 + 1 + 1 + 4 + 8
# libzstd's words for a window above its own limit, which is 2 GiB where pointers have 64 bits.
_ZSTD_WINDOW_WORDS = "requires too much memory"


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


class CutShortError(Exception):
    """A compressed stream ended too early. The bytes before were yielded."""


def sniff(path: str) -> Source:
    """How records are packed in the file at ``path``. Its magic bytes count for more than its name.

    UserMistake where nothing of it can be read; OSError as ``open_regular`` raises it.
    """
    with open_regular(path) as file:
        start = file.read(16)
    if refused := why_file_is_no_chat(path):
        raise UserMistake(f"{path}: {refused}")
    compression = "none"
    if start.startswith(_GZIP_MAGIC):
        compression = "gzip"
    elif start.startswith(_ZSTD_MAGIC) or _ZSTD_SKIPPABLE.match(start):
        compression = "zstd"
        if refused := _why_zstd_is_not_read(path):
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
            if not start:
                return Source(path, "lines", "none")
            raise UserMistake(f"{path}: {_NAMES[container]}, though its name says so.")
    head = _head(path, compression)
    if compression != "none" and (refused := why_no_chat(head)):
        raise UserMistake(f"{path}: {refused}")
    if compression == "none" and path.lower().endswith(COMPRESSION_ENDINGS) and not _is_text(head):
        raise UserMistake(f"{path}: is not compressed, though its name says so, and is not text.")
    if name.endswith(CSV_ENDINGS) and head.removeprefix(BOM).strip() and not _begins_as_json(head):
        return Source(path, _header(Source(path, "csv", compression), head).container, compression)
    return Source(path, _container(name, head), compression)


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


def _why_zstd_is_not_read(path: str) -> str | None:
    """Why the first frame that holds data cannot be unpacked; None where it can."""
    with open_regular(path) as file:
        while _ZSTD_SKIPPABLE.match(start := file.read(_ZSTD_HEADER_BYTES)):
            file.seek(int.from_bytes(start[4:8], "little") + 8 - len(start), os.SEEK_CUR)
    try:
        header = zstandard.get_frame_parameters(start)
    except zstandard.ZstdError as error:
        # A frame that is cut short or damaged is reported when it is read.
        if _ZSTD_WINDOW_WORDS not in str(error):
            return None
        return (
            f"its zstd frames need a window of more than {_ZSTD_WINDOW_BYTES >> 30} GiB in memory. "
            "Compress it again with `zstd --long=31` or less."
        )
    if header.dict_id:
        return (
            f"it needs zstd dictionary {header.dict_id}, which Assay does not have. "
            "Compress it again without a dictionary."
        )
    return None


def _head(path: str, compression: str) -> bytes:
    head = b""
    try:
        for chunk in stream(Source(path, "lines", compression)):
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


def stream(source: Source) -> Iterator[bytes]:
    """Yield the file's decompressed bytes in order; CutShortError where they end too early."""
    if source.compression == "gzip":
        return _gunzipped(source.path)
    if source.compression == "zstd":
        return _unzstd(source.path)
    return _plain(source.path, 0, None)


def _plain(path: str, offset: int, length: int | None) -> Iterator[bytes]:
    """Yield the file's bytes from ``offset``, ``length`` of them or all."""
    with open_regular(path) as file:
        file.seek(offset)
        left = length
        while chunk := file.read(_READ_BYTES if left is None else min(_READ_BYTES, left)):
            yield chunk
            if left is not None:
                left -= len(chunk)


def _gunzipped(path: str) -> Iterator[bytes]:
    """Yield the content of a gzip file, of any number of members, at most 1 MiB at a time."""
    with open_regular(path) as file:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        packed = file.read(_READ_BYTES)
        while True:
            before = unpacker.copy()
            try:
                unpacked = unpacker.decompress(packed, _READ_BYTES)
            except zlib.error as error:
                yield from _up_to_the_fault(before.decompress, packed)
                raise CutShortError(f"the gzip data are damaged ({error})") from error
            if unpacked:
                yield unpacked
            if unpacker.eof:
                packed = unpacker.unused_data or file.read(_READ_BYTES)
                # Tape blocks are padded with zeros; gunzip ignores them too.
                while packed and not packed.strip(b"\0"):
                    packed = file.read(_READ_BYTES)
                packed = packed.lstrip(b"\0")
                if not packed:
                    return
                if len(packed) < len(_GZIP_MAGIC):
                    packed += file.read(_READ_BYTES)
                if not packed.startswith(_GZIP_MAGIC):
                    raise CutShortError("something that is not gzip follows the gzip data")
                unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            elif unpacker.unconsumed_tail:
                packed = unpacker.unconsumed_tail
            else:
                packed = file.read(_READ_BYTES)
                # At the end of the file zlib may still hold output that did not fit the last call.
                if not packed and len(unpacked) < _READ_BYTES:
                    raise CutShortError("the gzip data end in the middle")


def _up_to_the_fault(unpack: Callable[[bytes], bytes], packed: bytes) -> Iterator[bytes]:
    """Yield what unpacks from ``packed`` before the byte that makes unpacking fail, some bytes at a time.

    A library's call that fails returns nothing: not what comes before the fault, and not even the whole
    content where only the checksum at the end is wrong.
    """
    held = bytearray()
    with suppress(zlib.error, zstandard.ZstdError):
        for at in range(len(packed)):
            held += unpack(packed[at : at + 1])
            if len(held) >= _READ_BYTES:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _zstd_unpacker() -> zstandard.ZstdDecompressionObj:
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()


def _unzstd(path: str) -> Iterator[bytes]:
    """Yield the content of a zstd file, of any number of frames, a bounded amount at a time."""
    with open_regular(path) as file:
        unpacker = _zstd_unpacker()
        # Where the frame begins, and where ``packed`` begins.
        frame = at = 0
        packed = file.read(_ZSTD_BITE_BYTES)
        while packed:
            try:
                unpacked = unpacker.decompress(packed)
            except zstandard.ZstdError as error:
                again = _zstd_unpacker()
                file.seek(frame)
                while frame < at and (passed := file.read(min(_ZSTD_BITE_BYTES, at - frame))):
                    again.decompress(passed)
                    frame += len(passed)
                yield from _up_to_the_fault(again.decompress, packed)
                raise CutShortError(f"the zstd data are damaged ({error})") from error
            if unpacked:
                yield unpacked
            at += len(packed)
            packed = unpacker.unused_data if unpacker.eof else b""
            if unpacker.eof:
                frame = at = at - len(packed)
                packed = packed or file.read(_ZSTD_BITE_BYTES)
                if not packed:
                    return
                unpacker = _zstd_unpacker()
            else:
                packed = file.read(_ZSTD_BITE_BYTES)
        raise CutShortError("the zstd data end in the middle")


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
            chunks = _plain(self._source.path, self._offset, self._length)
        else:
            chunks = stream(self._source)
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
            chunks, bom_bytes = _without_bom(chunks)
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
                if cut is not None and not _is_json(data):
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
        chunks, bom_bytes = _without_bom(chunks)
        splitter = _ValueSplitter(bom_bytes, bracketed=bracketed, limit=self._limit)
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
            elif not _is_json(data):
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
        chunks, bom_bytes = _without_bom(chunks)
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


def _without_bom(chunks: Iterator[bytes]) -> tuple[Iterator[bytes], int]:
    """The chunks without a leading byte order mark, and the length of that mark in bytes."""
    first = b""
    try:
        while len(first) < len(BOM) and (chunk := next(chunks, b"")):
            first += chunk
    except CutShortError as error:
        return chain((first,) if first else (), _raising(error)), 0
    found = len(BOM) if first.startswith(BOM) else 0
    return chain((first[found:],) if len(first) > found else (), chunks), found


def _raising(error: CutShortError) -> Iterator[bytes]:
    raise error
    yield b""


_DECODE_ANY: Callable[[bytes], object] = msgspec.json.Decoder(msgspec.Raw).decode


def _is_json(data: bytes) -> bool:
    """Whether ``data`` is one whole JSON object or array. The end of a number would not be certain."""
    try:
        _DECODE_ANY(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return data.rstrip().endswith((b"}", b"]"))


# Possessive quantifiers keep these patterns linear: they never backtrack.
_STRING = rb'"(?:[^"\\]++|\\[\s\S])*+"'
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\[\s\S])*+')
_NESTED = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+")
_BETWEEN_COMMAS = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+")
_BETWEEN_LINES = re.compile(rb'(?:[^"\[\]{}\n]++|' + _STRING + rb")*+")


class _ValueSplitter:
    """Finds where the values of a JSON array begin and end, without parsing them.

    A value ends at a comma or bracket of the array itself, so a broken value with balanced brackets costs
    only itself. In a file without an array (``bracketed`` False), a value ends where its own bracket closes.
    """

    def __init__(self, offset: int, *, bracketed: bool, limit: int):
        self.closed = False
        """Whether the array's closing bracket was seen."""
        self._opened = not bracketed
        self._bracketed = bracketed
        self._at_top = _BETWEEN_COMMAS if bracketed else _BETWEEN_LINES
        self._limit = limit
        self._buffer = b""
        self._buffer_offset = offset
        # The present value begins at _start; _dropped bytes of it are no longer held.
        self._start = 0
        self._dropped = 0
        # Everything before _position has been scanned.
        self._position = 0
        self._depth = 0
        self._in_string = False

    def feed(self, chunk: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, length, data) of each value that ends in ``chunk``; data is b"" for one too long."""
        self._buffer += chunk
        if not self._opened:
            at = self._buffer.find(b"[")
            if at < 0:
                return
            self._opened = True
            self._start = self._position = at + 1
        while not self.closed:
            if self._in_string:
                self._skip(_IN_STRING)
                if self._mark() != b'"':
                    break
                self._in_string = False
                self._position += 1
            self._skip(_NESTED if self._depth else self._at_top)
            mark = self._mark()
            if not mark:
                break
            self._position += 1
            if mark == b'"':
                self._in_string = True
            elif mark in b"[{":
                self._depth += 1
            elif self._depth:
                self._depth -= 1
                if not self._bracketed and not self._depth:
                    yield from self._value(self._position)
            elif mark == b"," or mark == b"\n" or (mark == b"]" and self._bracketed):
                self.closed = mark == b"]"
                yield from self._value(self._position - 1)
                self._start = self._position
            # Any other closing bracket is part of a broken value.
        if self.closed:
            self._position = len(self._buffer)
        keep_from = self._start
        if self._position - self._start + self._dropped > self._limit:
            keep_from = self._position
            self._dropped += self._position - self._start
        self._buffer = self._buffer[keep_from:]
        self._buffer_offset += keep_from
        self._position -= keep_from
        self._start = 0

    @property
    def end(self) -> int:
        """The offset at which the input so far ends."""
        return self._buffer_offset + len(self._buffer)

    def unfinished(self) -> tuple[int, int, bytes] | None:
        """The (offset, length, data) of what follows the last whole value; None where nothing does."""
        return next(self._value(len(self._buffer)), None)

    def _mark(self) -> bytes:
        return self._buffer[self._position : self._position + 1]

    def _skip(self, pattern: re.Pattern[bytes]) -> None:
        if found := pattern.match(self._buffer, self._position):
            self._position = found.end()

    def _value(self, end: int) -> Iterator[tuple[int, int, bytes]]:
        offset = self._buffer_offset + self._start - self._dropped
        length = self._dropped + end - self._start
        if length > self._limit:
            yield offset, length, b""
        else:
            text = self._buffer[self._start : end]
            if data := text.strip():
                yield offset + len(text) - len(text.lstrip()), len(data), data
        self._start, self._dropped = end, 0


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
        yield from _slices(stream(source), spans)


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
