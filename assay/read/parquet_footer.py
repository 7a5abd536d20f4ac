"""The footer of a Parquet file: its row groups, where they lie, how many values they hold.

Read here because polars gives no counts per row group and accepts a footer that contradicts itself. The
numbers of fields are those of ``parquet.thrift`` (apache/parquet-format), in Thrift's compact protocol.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from assay.read.damage import DamagedTable

#: How a Parquet file begins and ends.
MAGIC = b"PAR1"
_ENCRYPTED_MAGIC = b"PARE"
_MOST_NESTED = 64
_REPEATED = 2
# The most that a page's header takes; it may hold statistics of long texts.
_PAGE_HEADER_BYTES = 1 << 16

#: Writers whose counts of nulls and bytes proved right, in nested columns too.
_COUNTING_WRITERS = ("parquet-cpp-arrow", "parquet-rs", "Polars")


@dataclass(frozen=True, slots=True)
class Column:
    """One leaf column of one row group."""

    name: str
    """Its path in the schema: ``messages.list.element.content``."""
    offset: int
    length: int
    values: int | None
    """How many of its values are not null; None where the file has no reliable count."""
    text_bytes: int | None
    """Bytes of all its texts; None where the file has no count."""


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: its rows, and its place in the file from its first column to its last."""

    rows: int
    offset: int
    length: int
    unpacked_bytes: int
    columns: tuple[Column, ...]


def read_groups(file: BinaryIO) -> tuple[Group, ...]:
    """The row groups of an open Parquet file; DamagedTable where its footer is damaged."""
    size = file.seek(0, 2)
    if size < 12:
        raise DamagedTable("it is too short")
    file.seek(-8, 2)
    tail = file.read(8)
    if tail[4:] == _ENCRYPTED_MAGIC:
        raise DamagedTable("it is encrypted")
    file.seek(0)
    if tail[4:] != MAGIC or file.read(4) != MAGIC:
        raise DamagedTable("it does not begin and end as a Parquet file does")
    end = size - 8 - int.from_bytes(tail[:4], "little")
    if end < 4:
        raise DamagedTable("its footer is longer than the file")
    file.seek(end)
    try:
        return _groups(_Thrift(file.read(size - 8 - end)).struct(), end)
    except (KeyError, TypeError, AttributeError, IndexError, UnicodeDecodeError) as error:
        raise DamagedTable("its footer cannot be understood") from error


def _groups(footer: Mapping[int, Any], end: int) -> tuple[Group, ...]:
    leaves = list(_leaves(footer[2]))
    writer = footer.get(6, b"").decode()
    groups = tuple(_group(each, leaves, writer) for each in footer.get(4, []))
    rows = sum(group.rows for group in groups)
    if rows != footer[3]:
        raise DamagedTable(f"its footer states {footer[3]} rows, and {rows} in its row groups")
    if not groups and end > 4:
        raise DamagedTable("its footer states no row groups, and the file holds some")
    taken = 4
    for column in sorted(
        (column for group in groups for column in group.columns if column.length),
        key=lambda column: column.offset,
    ):
        if column.offset < taken:
            raise DamagedTable(f"its footer has two columns in one place, at byte {column.offset}")
        taken = column.offset + column.length
    if taken > end:
        raise DamagedTable("its footer has a column beyond the end of the data")
    return groups


def _leaves(schema: Sequence[Mapping[int, Any]]) -> Iterator[tuple[str, bool]]:
    """Yield the path of each leaf column, and whether a row can hold several of its values."""
    # The elements above the next one: path, whether it is repeated, how many children are still to come.
    above: list[tuple[str, bool, int]] = [("", False, schema[0].get(5, 0))]
    for element in schema[1:]:
        while above and not above[-1][2]:
            above.pop()
        if not above:
            break
        parent, repeated, left = above[-1]
        above[-1] = (parent, repeated, left - 1)
        path = f"{parent}.{element[4].decode()}".lstrip(".")
        repeated = repeated or element.get(3) == _REPEATED
        if children := element.get(5, 0):
            if len(above) > _MOST_NESTED:
                raise DamagedTable("its schema is nested too deeply")
            above.append((path, repeated, children))
        else:
            yield path, repeated
    else:
        if not any(left for _, _, left in above):
            return
    raise DamagedTable("its schema does not add up")


def _group(group: Mapping[int, Any], leaves: Sequence[tuple[str, bool]], writer: str) -> Group:
    rows, chunks = group[3], group[1]
    if rows < 0 or len(chunks) != len(leaves):
        raise DamagedTable("its footer has a row group that does not fit its schema")
    columns = []
    for chunk, (name, repeated) in zip(chunks, leaves, strict=True):
        if chunk.get(1):
            raise DamagedTable("its data lie in other files")
        about = chunk[3]
        stated = about[5]
        if stated < rows or (stated > rows and not repeated):
            raise DamagedTable(f"its footer states {rows} rows, and {stated} values of column {name}")
        offset, dictionary = about[9], about.get(11, 0)
        # A column without pages has offset 0. pyarrow gives a column without rows a dictionary all the same.
        if dictionary > 0 and (dictionary < offset or not rows):
            offset = dictionary
        if about[7] < 0:
            raise DamagedTable(f"its footer states {about[7]} bytes of column {name}")
        counts = writer.startswith(_COUNTING_WRITERS)
        nulls = about.get(12, {}).get(3) if counts else None
        columns.append(
            Column(
                name=name,
                offset=offset,
                length=about[7],
                values=None if nulls is None else stated - nulls,
                text_bytes=about.get(16, {}).get(1) if counts else None,
            )
        )
    begin = min((column.offset for column in columns), default=0)
    end = max((column.offset + column.length for column in columns), default=0)
    return Group(rows, begin, end - begin, max(0, group.get(2, 0)), tuple(columns))


def check_sums(file: BinaryIO, group: Group) -> None:
    """Raise DamagedTable where a page of the group does not match its checksum.

    Checksums are optional; Spark's files have them. A column whose first page has none is skipped.
    """
    for column in group.columns:
        at, end = column.offset, column.offset + column.length
        while at < end:
            file.seek(at)
            reader = _Thrift(file.read(min(_PAGE_HEADER_BYTES, end - at)))
            try:
                header = reader.struct()
                length, stated = header[3], header.get(4)
            except (KeyError, TypeError, AttributeError, DamagedTable):
                break  # polars finds no page there either, and reports it
            if stated is None or length < 0:
                break
            at += reader.position
            file.seek(at)
            left, running = min(length, end - at), 0
            while left and (data := file.read(min(left, 1 << 20))):
                running = zlib.crc32(data, running)
                left -= len(data)
            if left or running != stated & 0xFFFFFFFF:
                raise DamagedTable(f"a page of column {column.name} does not match its checksum")
            at += length


class _Thrift:
    """Thrift's compact protocol. A struct becomes a dict by field number; other values stay as they are."""

    def __init__(self, data: bytes) -> None:
        self.position = 0
        self._data = data

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The struct that begins at ``position``; DamagedTable where it cannot be read."""
        if depth > _MOST_NESTED:
            raise DamagedTable("its footer is nested too deeply")
        found: dict[int, Any] = {}
        field = 0
        while header := self._byte():
            kind = header & 0x0F
            field = field + (header >> 4) if header >> 4 else self._signed()
            # A Boolean field has its value in its type. A Boolean in a list is a byte.
            found[field] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind == 12:
            return self.struct(depth + 1)
        if kind in (9, 10):
            header = self._byte()
            count = header >> 4 if header >> 4 < 15 else self._unsigned()
            self._require(count)
            return [self._value(header & 0x0F, depth + 1) for _ in range(count)]
        if kind in (1, 2, 3):
            return self._byte()
        if kind == 7:
            return self._bytes(8)
        if kind == 11:
            count = self._unsigned()
            kinds = self._byte() if count else 0
            self._require(count)
            return [
                (self._value(kinds >> 4, depth + 1), self._value(kinds & 0x0F, depth + 1))
                for _ in range(count)
            ]
        raise DamagedTable("its footer cannot be understood")

    def _require(self, count: int) -> None:
        """Raise DamagedTable where fewer than ``count`` bytes are left."""
        if count > len(self._data) - self.position:
            raise DamagedTable("its footer is cut short")

    def _byte(self) -> int:
        self._require(1)
        self.position += 1
        return self._data[self.position - 1]

    def _bytes(self, count: int) -> bytes:
        self._require(count)
        self.position += count
        return self._data[self.position - count : self.position]

    def _unsigned(self) -> int:
        result = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
        raise DamagedTable("its footer cannot be understood")

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)
