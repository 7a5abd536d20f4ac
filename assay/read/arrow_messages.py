"""The messages of an Arrow IPC file: where its record batches lie, and how many rows each states.

Read here because polars stops at the first damaged batch, and because a stream that is cut behind a batch
looks whole to it. Both forms are read: the stream, which ``datasets`` writes, and the file, which has a
footer (arrow.apache.org/docs/format/Columnar.html, "Serialization and Interprocess Communication"). The
numbers of fields are those of ``Message.fbs``, ``Schema.fbs`` and ``File.fbs`` in apache/arrow.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from assay.read.damage import DamagedTable

#: How a file in the form with a footer begins and ends.
FILE_MAGIC = b"ARROW1"
#: What stands before each message, and so at the beginning of a stream.
CONTINUATION = b"\xff\xff\xff\xff"

_END_OF_STREAM = CONTINUATION + bytes(4)
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_MOST_NESTED = 64
_MOST_FIELDS = 100_000
# Writers fill up to 8 or 64 bytes behind what they write.
_FILLING_BYTES = 64
# More rows than this for each byte of a batch cannot be: a repeated value packs well, but not as well.
_MOST_ROWS_PER_BYTE = 1 << 16
# The buffers of a column, by the number of its type ("Columnar.html", "Buffer Listing for Each Layout").
# ``r`` is one to which each row adds; ``o`` holds offsets, which a writer need not cut to the rows; ``*`` are
# as many as the batch says. Types that are not here are not held against the rows.
_FIXED, _TEXT, _LIST, _VIEW = "rr", "ror", "ro", "rr*"
_LAYOUTS = {
    1: "",  # Null
    **dict.fromkeys((2, 3, 6, 7, 8, 9, 10, 11, 15, 18), _FIXED),
    **dict.fromkeys((4, 5, 19, 20), _TEXT),
    **dict.fromkeys((12, 17, 21), _LIST),
    **dict.fromkeys((13, 16), "r"),  # Struct and FixedSizeList
    **dict.fromkeys((23, 24), _VIEW),
}
_BLOCK = struct.Struct("<qi4xq")
_NODE = struct.Struct("<qq")
_BUFFER = struct.Struct("<qq")
_COUNT = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Batch:
    """A record batch: its rows, and its place in the file."""

    rows: int
    offset: int
    length: int
    nulls: tuple[int, ...]
    """How many values of each column are null."""
    dictionaries: int
    """How many of the file's dictionaries come before it."""
    damage: str | None = None
    """Why it cannot be read, where that is known already. Then ``rows`` may be a guess: at least 1."""


@dataclass(frozen=True, slots=True)
class Messages:
    """What an Arrow file holds."""

    schema: bytes
    """The schema as a whole message, as a stream begins with it."""
    dictionaries: tuple[tuple[int, int], ...]
    """Offset and length of each message that holds a dictionary."""
    batches: tuple[Batch, ...]
    cut: str | None
    """Why rows behind the last batch are missing; None where none are."""

    def before(self, batch: Batch) -> tuple[tuple[int, int], ...]:
        """Places of the dictionaries that the batch needs."""
        return self.dictionaries[: batch.dictionaries]


def read_messages(file: BinaryIO) -> Messages:
    """The messages of an open Arrow file; DamagedTable where nothing of it can be read."""
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(len(FILE_MAGIC)) == FILE_MAGIC:
        return _with_footer(file, size)
    return _stream(file, size)


def as_stream(schema: bytes, messages: Sequence[bytes]) -> bytes:
    """A stream of the schema and these messages, with an end."""
    return b"".join((schema, *messages, _END_OF_STREAM))


class _Message:
    """One message at a place in the file: its metadata, and where its body lies."""

    def __init__(self, file: BinaryIO, offset: int, end: int) -> None:
        file.seek(offset)
        head = file.read(8)
        if head[:4] != CONTINUATION or len(head) < 8:
            raise DamagedTable("no message begins there")
        self.offset = offset
        metadata_bytes = int.from_bytes(head[4:], "little")
        if metadata_bytes > end - offset - 8:
            raise DamagedTable("its metadata are longer than the file")
        data = file.read(metadata_bytes)
        self._file = file
        self.flat = _Flat(data)
        self.table = self.flat.root()
        self.kind = self.flat.number(self.table, 1, "B")
        self.body_bytes = self.flat.number(self.table, 3, "q")
        self.metadata_end = offset + 8 + metadata_bytes
        self.end = self.metadata_end + self.body_bytes
        if self.body_bytes < 0 or self.end > end:
            raise _Incomplete("it ends in the middle")

    def header(self) -> int:
        found = self.flat.table(self.table, 2)
        if not found:
            raise DamagedTable("its message is empty")
        return found

    def bytes_of(self, offset: int, length: int, *, packed: bool) -> int:
        """How many bytes a buffer of the body holds, once it is unpacked."""
        if not packed or length < 8:
            return length
        self._file.seek(self.metadata_end + offset)
        (unpacked,) = struct.unpack("<q", self._file.read(8).ljust(8, b"\0"))
        return length - 8 if unpacked == -1 else int(unpacked)


class _Incomplete(DamagedTable):
    """A message whose body the file does not hold in full."""


def _stream(file: BinaryIO, size: int) -> Messages:
    try:
        first = _Message(file, 0, size)
        if first.kind != _SCHEMA:
            raise DamagedTable("it does not begin with a schema")
        schema = _Schema(first.flat, first.header())
    except DamagedTable as error:
        raise DamagedTable(f"its schema cannot be read: {error}") from error
    file.seek(0)
    dictionaries: list[tuple[int, int]] = []
    batches: list[Batch] = []
    at = first.end
    cut = None
    while True:
        file.seek(at)
        if (mark := file.read(8)) == _END_OF_STREAM:
            if size - at > 8:
                cut = f"something follows its end, at byte {at}"
            break
        if not mark:
            cut = "the mark at its end is missing"
            break
        try:
            message = _Message(file, at, size)
            file.seek(message.end)
            # A message is believed if another follows it, or if its buffers fill it: then what follows is
            # damaged. Otherwise its own length is wrong.
            if file.read(4) not in (CONTINUATION, b"") and not schema.fills(message):
                raise DamagedTable("its length is wrong")
        except DamagedTable as error:
            cut = f"what begins at byte {at} cannot be read ({error}), nor what follows it"
            break
        at = message.end
        try:
            if message.kind == _DICTIONARY:
                schema.check_dictionary(message)
                dictionaries.append((message.offset, message.end - message.offset))
            else:
                batches.append(schema.batch(message, len(dictionaries)))
        except DamagedTable as error:
            batches.append(_unknown(message.offset, message.end - message.offset, len(dictionaries), error))
    file.seek(0)
    return Messages(file.read(first.end), tuple(dictionaries), tuple(batches), cut)


def _unknown(offset: int, length: int, dictionaries: int, error: DamagedTable) -> Batch:
    why = f"{error}; how many rows it holds cannot be known"
    return Batch(1, offset, length, (), dictionaries, why)


def _with_footer(file: BinaryIO, size: int) -> Messages:
    file.seek(max(0, size - 10))
    tail = file.read(10)
    if tail[4:] != FILE_MAGIC:
        raise DamagedTable("it does not end as an Arrow file does: it is cut short")
    footer_bytes = int.from_bytes(tail[:4], "little")
    begin = size - 10 - footer_bytes
    if begin < 8:
        raise DamagedTable("its footer is longer than the file")
    file.seek(begin)
    flat = _Flat(file.read(footer_bytes))
    footer = flat.root()
    place = flat.table(footer, 1)
    if not place:
        raise DamagedTable("its footer has no schema")
    schema = _Schema(flat, place)
    dictionary_blocks = list(_blocks(flat, footer, 2))
    blocks = list(_blocks(flat, footer, 3))
    every = [*dictionary_blocks, *blocks]
    _check_covered(every, begin)
    _check_beginning(file, schema, min((offset for offset, _, _ in every), default=begin), footer_bytes)
    places = [(offset, metadata + body) for offset, metadata, body in dictionary_blocks]
    batches: list[Batch] = []
    for offset, metadata, body in blocks:
        length = metadata + body
        try:
            message = _Message(file, offset, begin)
            if (message.metadata_end - offset, message.body_bytes) != (metadata, body):
                raise DamagedTable("its footer states another length")
            batch = schema.batch(message, len(places))
        except DamagedTable as error:
            batch = _unknown(offset, length, len(places), error)
        batches.append(batch)
    return Messages(_schema_message(flat.data, place), tuple(places), tuple(batches), None)


def _blocks(flat: _Flat, footer: int, field: int) -> Iterator[tuple[int, int, int]]:
    """(offset, bytes of metadata, bytes of body) of each message that a footer lists in a field."""
    return ((offset, metadata, body) for offset, metadata, body in flat.structs(footer, field, _BLOCK))


def _check_covered(blocks: Sequence[tuple[int, int, int]], end: int) -> None:
    """Raise DamagedTable where the footer's blocks overlap, or leave out a part of the file."""
    taken: int | None = None
    for offset, metadata, body in sorted(blocks):
        if offset < 8 or metadata < 8 or body < 0:
            raise DamagedTable("its footer cannot be understood")
        if taken is not None and not 0 <= offset - taken < _FILLING_BYTES:
            raise DamagedTable(f"its footer does not say what lies at byte {min(offset, taken)}")
        taken = offset + metadata + body
    if taken is not None and not 0 <= end - taken < _FILLING_BYTES + len(_END_OF_STREAM):
        raise DamagedTable(f"its footer does not say what lies at byte {min(taken, end)}")


def _check_beginning(file: BinaryIO, schema: _Schema, end: int, footer_bytes: int) -> None:
    """Raise DamagedTable where more than a schema lies before ``end``, where the footer's first block begins.

    How long that schema is cannot be read: polars writes it without its length. The footer holds the same
    schema, with its metadata, so the schema is hardly longer than the footer.
    """
    if end > footer_bytes + 4 * _FILLING_BYTES:
        raise DamagedTable(f"its footer does not say what lies before byte {end}")
    file.seek(0)
    for mark in re.finditer(b"(?=%b)" % CONTINUATION, file.read(end)):
        if _is_batch(file, schema, mark.start(), end):
            raise DamagedTable(f"its footer does not say what lies at byte {mark.start()}")


def _is_batch(file: BinaryIO, schema: _Schema, at: int, end: int) -> bool:
    """Whether a record batch of the schema lies there."""
    try:
        return schema.fills(_Message(file, at, end))
    except DamagedTable:
        return False


def _schema_message(footer: bytes, place: int) -> bytes:
    """A schema message whose header is the table at ``place`` of a footer, which it holds as it is.

    All places in flatbuffers are relative, so the footer need not be taken apart.
    """
    before = 32
    # The offset of the table, then its vtable (two sizes, and where version, kind and header lie in the
    # table), then the table: the way back to the vtable, the way to the header, the version, the kind.
    wrapped = struct.pack("<IHHHHH2xiIhB5x", 16, 10, 12, 8, 10, 4, 12, before + place - 20, 4, _SCHEMA)
    wrapped += footer + bytes(-(before + len(footer)) % 8)
    return CONTINUATION + len(wrapped).to_bytes(4, "little") + wrapped


class _Schema:
    """The columns of a file: how many nodes of a batch each takes, and the names of dictionaries."""

    def __init__(self, flat: _Flat, place: int) -> None:
        self._dictionaries: set[int] = set()
        self._left = _MOST_FIELDS
        self._layouts: list[str | None] = []
        self._nodes = tuple(self._nodes_of(flat, field, 0) for field in flat.tables(place, 1))
        if not self._nodes:
            raise DamagedTable("it has no columns")

    def _nodes_of(self, flat: _Flat, field: int, depth: int) -> int:
        self._left -= 1
        if depth > _MOST_NESTED or self._left < 0:
            raise DamagedTable("its schema is nested too deeply")
        if dictionary := flat.table(field, 4):
            self._dictionaries.add(flat.number(dictionary, 0, "q"))
            self._layouts.append(_FIXED)
            return 1
        self._layouts.append(_LAYOUTS.get(flat.number(field, 2, "B")))
        return 1 + sum(self._nodes_of(flat, child, depth + 1) for child in flat.tables(field, 5))

    def check_dictionary(self, message: _Message) -> None:
        """Raise DamagedTable where the message is no dictionary of the schema's."""
        header = message.header()
        if message.flat.number(header, 0, "q") not in self._dictionaries or not message.flat.table(header, 1):
            raise DamagedTable("the schema knows no such dictionary")

    def batch(self, message: _Message, dictionaries: int) -> Batch:
        """The record batch of a message; DamagedTable where it is none, or contradicts itself."""
        if message.kind != _BATCH:
            raise DamagedTable("it is no record batch")
        flat, header = message.flat, message.header()
        rows = flat.number(header, 0, "q")
        nodes = [(count, nulls) for count, nulls in flat.structs(header, 1, _NODE)]
        ends = [offset + length for offset, length in flat.structs(header, 2, _BUFFER)]
        length = message.end - message.offset
        if len(nodes) != sum(self._nodes):
            raise DamagedTable("it does not fit the schema")
        if not 0 <= message.body_bytes - max(ends, default=0) < _FILLING_BYTES:
            raise DamagedTable("its length is wrong")
        columns = list(self._columns(nodes))
        votes = Counter([rows, *(count for count, _ in columns)])
        damage = None
        if len(votes) > 1:
            damage = f"it states {rows} rows, and its columns {' or '.join(str(each) for each, _ in columns)}"
            # The number that is stated most often; the least of these.
            rows = min(votes, key=lambda each: (-votes[each], each))
            damage = damage[:200]
        if rows == 0 and any(self._of_rows(message)):
            raise DamagedTable("it states no rows, and holds some")
        if not 0 <= rows <= length * _MOST_ROWS_PER_BYTE:
            raise DamagedTable(f"it states {rows} rows in {length} bytes")
        return Batch(rows, message.offset, length, tuple(nulls for _, nulls in columns), dictionaries, damage)

    def fills(self, message: _Message) -> bool:
        """Whether the message is a record batch without contradictions, whose buffers fill it."""
        try:
            return self.batch(message, 0).damage is None
        except DamagedTable:
            return False

    def _of_rows(self, message: _Message) -> Iterator[int]:
        """Yield the bytes of each buffer to which every row adds, as far as it is known which these are."""
        flat, header = message.flat, message.header()
        buffers = flat.structs(header, 2, _BUFFER)
        packed = flat.table(header, 3) != 0
        views = flat.structs(header, 4, _COUNT)
        for layout in self._layouts:
            if layout is None:
                return
            for kind in layout:
                several = next(views, (0,))[0] if kind == "*" else 1
                for offset, length in islice(buffers, several):
                    if kind == "r":
                        yield message.bytes_of(offset, length, packed=packed)

    def _columns(self, nodes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        at = 0
        for count in self._nodes:
            yield nodes[at]
            at += count


class _Flat:
    """A flatbuffer. Tables are places in it; DamagedTable where a place lies outside."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def root(self) -> int:
        """The place of the root table."""
        return self._at(0, "I")

    def number(self, table: int, field: int, kind: str) -> int:
        """The number in a field of a table; 0 where it is left out."""
        place = self._field(table, field)
        return self._at(place, kind) if place else 0

    def table(self, table: int, field: int) -> int:
        """The place of the table in a field; 0 where it is left out."""
        place = self._field(table, field)
        return place + self._at(place, "I") if place else 0

    def tables(self, table: int, field: int) -> Iterator[int]:
        """Yield the places of the tables in the vector in a field."""
        first, count = self._vector(table, field, 4)
        for place in range(first, first + 4 * count, 4):
            yield place + self._at(place, "I")

    def structs(self, table: int, field: int, shape: struct.Struct) -> Iterator[tuple[int, ...]]:
        """Yield the structs in the vector in a field."""
        first, count = self._vector(table, field, shape.size)
        yield from shape.iter_unpack(self.data[first : first + count * shape.size])

    def _vector(self, table: int, field: int, size: int) -> tuple[int, int]:
        place = self.table(table, field)
        if not place:
            return 0, 0
        count = self._at(place, "I")
        if place + 4 + count * size > len(self.data):
            raise DamagedTable("its metadata are cut short")
        return place + 4, count

    def _field(self, table: int, field: int) -> int:
        """The place of a field's value; 0 where the table leaves it out."""
        vtable = table - self._at(table, "i")
        if 4 + 2 * field >= self._at(vtable, "H"):
            return 0
        offset = self._at(vtable + 4 + 2 * field, "H")
        return table + offset if offset else 0

    def _at(self, place: int, kind: str) -> int:
        if place < 0:
            raise DamagedTable("its metadata cannot be understood")
        try:
            (found,) = struct.unpack_from(f"<{kind}", self.data, place)
        except struct.error:
            raise DamagedTable("its metadata are cut short") from None
        return int(found)
