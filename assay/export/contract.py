"""An export is a contract: a file that one trainer loads, and what of the kept records it can take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import msgspec
import polars as pl

from assay.core.schema import Message
from assay.export.kept import NOTHING, Held, Item, KeptRecords, are_plain, items_of, turns_of
from assay.export.pairs import Pair, PairChoice
from assay.export.splits import Split
from assay.export.turned import MASKED_TURN, MASKS, WEIGHT, partial_weight
from assay.storage.conversations import field_names
from assay.storage.manifests import reason_code
from assay.storage.run_manifest import Written

Json: TypeAlias = "bool | int | float | str | msgspec.Raw | Sequence[Json] | Mapping[str, Json] | None"
"""JSON's types, and JSON that is already text, which keeps its digits."""

Row: TypeAlias = "Mapping[str, Json] | msgspec.Raw"

_ENCODE = msgspec.json.Encoder().encode


class Unit(StrEnum):
    """What one row of an export is made of."""

    RECORD = "record"
    TURN = "turn"
    PAIR = "pair"


class Outcome(StrEnum):
    """Which records a file is made of."""

    KEPT = "kept"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class AtOnce:
    """The rows of a block in one go, where polars writes them faster than Python does one by one."""

    lines: Callable[[KeptRecords], bytes]
    """JSON lines, line ends included, one a record, in order."""
    outcome: Outcome = Outcome.KEPT
    """Of records that were dropped, ``reason`` is among the columns, and turns may lack scores."""


@dataclass(frozen=True, slots=True)
class PlainRows:
    """The rows of records whose messages hold a role and a content alone, in one go (``are_plain``)."""

    lines: Callable[[KeptRecords], pl.Series]
    """A line a record, line end included, in order: the bytes that ``Export.row`` gives."""
    refuses: Callable[[str], str | None]
    """What ``Export.refuses`` says of a record with these roles."""


Columns: TypeAlias = "Mapping[str, pl.DataType | type[pl.DataType]]"
"""The types of a table's columns, by name."""


@dataclass(frozen=True, slots=True)
class EveryRecord:
    """A table of all records of the inputs, whatever became of them."""

    columns: Callable[[tuple[str, ...], tuple[str, ...], Held], Columns]
    """The table's columns for a model that rates these attributes, where people gave turns these
    ``given.NAME``, and records hold this."""
    frame: Callable[[KeptRecords], pl.DataFrame]
    """A row a record, in order. The records also have ``outcome`` and ``reason``, and not all are kept: the
    messages of some cannot be read, and turns may lack scores."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that a trainer needs beside its data. Exports that name an equal one share it."""

    file: str
    """Its name in the output folder."""
    content: Callable[[Mapping[str, Written]], bytes]
    """The file, made once all is written, of what the exports that share it wrote, by their names."""


Of = TypeVar("Of", bound="Item | Pair")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export(Generic[Of]):
    """A file that one trainer loads: a row an item, which is a record, a turn or a pair.

    To add one: write a module that makes an ``Export``, and add it to ``RECORD_EXPORTS`` or
    ``PAIR_EXPORTS`` in ``__init__.py``.
    """

    name: str
    """What ``--export`` takes."""
    file: str
    """Its name in the output folder: in a folder a trainer. A name that ends in ``.parquet`` is a table."""
    description: str
    """One line for a person who chooses."""
    version: int = 1
    """Raised whenever the same items give another file: files of an earlier version are then made again."""
    unit: Unit = Unit.RECORD
    needs: frozenset[str] = frozenset()
    """Columns of which a run needs at least one; without, the export is refused before any work."""
    refuses: Callable[[Of], str | None] | None = None
    """Why the trainer would drop, alter or die on an item: ``code`` or ``code: detail``; None where it
    takes it. Without this function it takes every item. It looks at no score."""
    row: Callable[[Of], Row] | AtOnce | EveryRecord
    """What the file holds of an item that is not refused."""
    plain: PlainRows | None = None
    """Writes what ``row`` writes, without a loop, of most records; None: ``row`` writes all of them."""
    columns: Columns | Callable[[Held], Columns] | None = None
    """The types of a table's columns, which the mappings that ``row`` returns have; None for JSON lines."""
    holds: frozenset[str] = frozenset()
    """The fields of messages that its rows hold, by name, and ``tools``. Without ``tool_calls`` or ``tools``
    among them, items that have such are left out. Other fields that rows lack are counted. With any of
    ``MASKS`` its rows say which turns are not to be trained on; without, items of which a rule masks a turn
    are left out."""
    tools_as_a_list: bool = False
    """Whether its rows hold tools as objects, of as many types as there are tools, and not as one text."""
    holds_sides: bool = False
    """Whether its rows say which answers a person chose, where records came as sides of pairs."""
    companions: tuple[Companion, ...] = ()

    @property
    def holds_masks(self) -> bool:
        """Whether its rows say which turns are not to be trained on."""
        return not MASKS.isdisjoint(self.holds)


class ToWrite(NamedTuple):
    """The exports that a run writes, each once."""

    records: tuple[Export[Item], ...] = ()
    """Of records, or of turns."""
    pairs: tuple[Export[Pair], ...] = ()
    choice: PairChoice = PairChoice()
    """Which pairs."""
    split: Split | None = None
    """How every file is divided; None: it is not."""
    has_rule: bool = False
    """Whether a rule says which answers are desirable."""
    shard_bytes: int | None = None
    """The most bytes of a file, of which there are then several; None: each is one file."""


class MadeRows(NamedTuple):
    """The rows that a file holds of a block, and what was left out of them."""

    lines: bytes
    """Whole JSON lines, line ends included. Empty for a table."""
    table: pl.DataFrame | None
    """None for JSON lines."""
    rows: int
    left_out: Counter[str]
    """By reason code."""
    without: Counter[str]
    """Of how many items a field of messages is not in the lines, by name."""


def items_in(export: Export[Item], records: Iterable[Item]) -> Iterator[Item]:
    """Yield the items of these records, in the unit of the export: themselves, or their turns."""
    for item in records:
        if export.unit is Unit.TURN:
            yield from turns_of(item)
        else:
            yield item


def takes_every_record(export: Export[Item]) -> bool:
    """Whether no record is left out of an export."""
    return export.refuses is None and isinstance(export.row, AtOnce | EveryRecord)


def looks_at_items(export: Export[Item]) -> bool:
    """Whether an export needs a block's records one by one."""
    return export.plain is None and not takes_every_record(export)


def refusals(export: Export[Of], items: Iterable[Of]) -> list[str | None]:
    """A reason an item, None where the export takes it."""
    return [refusal(export, item) for item in items]


def refusal(export: Export[Of], item: Of) -> str | None:
    """Why the item is left out of the export; None where it is not."""
    if isinstance(item, Item) and item.masked and not export.holds_masks:
        return MASKED_TURN
    reason = None if export.refuses is None else export.refuses(item)
    return _not_held(export.holds, item) if reason is None else reason


def rows_of_block(export: Export[Item], kept: KeptRecords, records: Sequence[Item] | None = None) -> MadeRows:
    """What the file of an export holds of a block: every item is a row, or is left out.

    ``records`` are those of the block one by one, where they were decoded before.
    """
    if isinstance(export.row, EveryRecord):
        return MadeRows(b"", export.row.frame(kept), kept.records.height, Counter(), Counter())
    if export.plain is not None:
        return _plain_and_others(export, export.plain, kept)
    if not isinstance(export.row, AtOnce):
        return rows_of(export, items_in(export, items_of(kept) if records is None else records), kept.held)
    left_out: Counter[str] = Counter()
    if export.refuses is not None or (not export.holds_masks and kept.have_masks):
        reasons = refusals(export, items_of(kept) if records is None else records)
        left_out.update(reason_code(reason) for reason in reasons if reason is not None)
        kept = kept.only(pl.Series([reason is None for reason in reasons], dtype=pl.Boolean))
    count = kept.records.height
    return MadeRows(export.row.lines(kept) if count else b"", None, count, left_out, Counter())


def _plain_and_others(export: Export[Item], plain: PlainRows, kept: KeptRecords) -> MadeRows:
    """What the file holds of a block: plain records in one go, the others one by one, all in order."""
    is_plain = are_plain(kept.records)
    roles = kept.records["roles"]
    reasons = {one: reason for one in roles.unique() if (reason := plain.refuses(one)) is not None}
    is_taken = is_plain & ~roles.is_in([*reasons])
    left_out: Counter[str] = Counter()
    for one, count in roles.filter(is_plain & ~is_taken).value_counts().iter_rows():
        left_out[reason_code(reasons[one])] += count
    lines = plain.lines(kept.only(is_taken)) if is_taken.any() else pl.Series(dtype=pl.String)
    if is_plain.all():
        return MadeRows(lines.str.join("").item().encode(), None, lines.len(), left_out, Counter())
    made = iter(lines)
    others = items_of(kept.only(~is_plain))
    written: list[bytes] = []
    rows, without = 0, Counter[str]()
    for yes, taken in zip(is_plain, is_taken, strict=True):
        if not yes:
            other = rows_of(export, items_in(export, [next(others)]), kept.held)
            written.append(other.lines)
            rows += other.rows
            left_out.update(other.left_out)
            without.update(other.without)
        elif taken:
            written.append(next(made).encode())
            rows += 1
    return MadeRows(b"".join(written), None, rows, left_out, without)


def rows_of(export: Export[Of], items: Iterable[Of], held: Held = NOTHING) -> MadeRows:
    """What the file of an export holds of some items: each is a row, or is left out.

    ``held`` is what the records of the run hold, as the items have it.
    """
    if isinstance(export.row, AtOnce | EveryRecord):
        raise TypeError(f"export {export.name} writes whole blocks")
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for item in items:
        reason = refusal(export, item)
        if reason is None:
            rows.append(export.row(item))
            without.update(_lacking(export, item))
        else:
            left_out[reason_code(reason)] += 1
    columns = columns_of(export, held)
    if columns is not None:
        return MadeRows(b"", _table(rows, columns), len(rows), left_out, without)
    lines = b"".join([_on_one_line(_ENCODE(row)) for row in rows])
    return MadeRows(lines, None, len(rows), left_out, without)


def _table(rows: Sequence[Row], columns: Columns) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(columns), orient="row")


def columns_of(export: Export[Of], held: Held) -> Columns | None:
    """The types of the table's columns for records that hold this; None where the file has lines."""
    return export.columns(held) if callable(export.columns) else export.columns


def _not_held(holds: frozenset[str], item: Item | Pair) -> str | None:
    if "tool_calls" not in holds:
        for number, message in enumerate(item.messages, 1):
            if type(message) is not Message and message.fields.tool_calls is not None:
                return f"tool_call: message {number} calls a tool"
    return None if item.tools is None or "tools" in holds else "tools: the record has tools"


def _lacking(export: Export[Of], item: Of) -> set[str]:
    """The fields of the item's messages that the export's rows lack.

    A mark that a turn is not to be learned cannot say that it is to be learned by half.
    """
    lacking = _names_of_fields(item) - export.holds
    if export.holds_masks and any(partial_weight(one) is not None for one in item.messages):
        lacking.add(WEIGHT)
    return lacking


def _names_of_fields(item: Item | Pair) -> set[str]:
    """The fields of the item's messages."""
    return {
        name for message in item.messages if type(message) is not Message for name in field_names(message)
    }


def _on_one_line(row: bytes) -> bytes:
    """The row with its line end. A raw line end can only stand between tokens, where a space is as good."""
    return row.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"
