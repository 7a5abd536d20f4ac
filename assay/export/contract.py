"""An export is a contract: a file that one trainer loads, and what of the kept records it can take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec
import polars as pl

from assay.core.schema import Message
from assay.export.kept import Item, KeptRecords, items_of
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
    PAIR = "pair"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class AtOnce:
    """The rows of a block in one go, where polars writes them faster than Python does one by one."""

    lines: Callable[[KeptRecords], bytes]
    """JSON lines, line ends included, one a record, in order."""


def no_companion(written: Written) -> Mapping[str, bytes]:
    """Nothing: the trainer needs no file beside its data."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A file that one trainer loads.

    To add one: write a module that makes an ``Export``, and add it to ``EXPORTS``.
    """

    name: str
    """What ``--export`` takes."""
    file: str
    """Its name in the output folder."""
    description: str
    """One line for a person who chooses."""
    version: int = 1
    """Raised whenever the same items give another file: files of an earlier version are then made again."""
    unit: Unit = Unit.RECORD
    needs: frozenset[str] = frozenset()
    """Columns of which a run needs at least one; without, the export is refused before any work."""
    refuses: Callable[[Item], str | None] | None = None
    """Why the trainer would drop, alter or die on an item: ``code`` or ``code: detail``; None where it
    takes it. Without this function it takes every item."""
    row: Callable[[Item], Row] | AtOnce
    """What the file holds of an item that is not refused."""
    holds_fields: bool = True
    """Whether its rows hold what messages hold beside role, content and label. What one lacks is counted."""
    companion: Callable[[Written], Mapping[str, bytes]] = no_companion
    """The files that the trainer needs beside its data, by name, made once all is written."""


class Lines(NamedTuple):
    """Whole JSON lines, line ends included, and what was left out of them."""

    data: bytes
    rows: int
    left_out: Counter[str]
    """By reason code."""
    without: Counter[str]
    """Of how many items a field of messages is not in the lines, by name."""


def refusals(export: Export, kept: KeptRecords) -> list[str | None]:
    """A reason a record, None where the export takes it."""
    if export.refuses is None:
        return [None] * kept.records.height
    return [export.refuses(item) for item in items_of(kept)]


def lines_of(export: Export, kept: KeptRecords) -> Lines:
    """What the file of an export holds of a block: every record is a line, or is left out."""
    if isinstance(export.row, AtOnce):
        left_out: Counter[str] = Counter()
        if export.refuses is not None:
            reasons = refusals(export, kept)
            left_out.update(reason_code(reason) for reason in reasons if reason is not None)
            kept = _only(kept, [reason is None for reason in reasons])
        rows = kept.records.height
        return Lines(export.row.lines(kept) if rows else b"", rows, left_out, Counter())
    return _one_by_one(export, export.row, items_of(kept))


def _one_by_one(export: Export, row: Callable[[Item], Row], items: Iterator[Item]) -> Lines:
    lines: list[bytes] = []
    left_out: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for item in items:
        reason = export.refuses(item) if export.refuses is not None else None
        if reason is None:
            lines.append(_on_one_line(_ENCODE(row(item))))
            if not export.holds_fields:
                without.update(_names_of_fields(item))
        else:
            left_out[reason_code(reason)] += 1
    return Lines(b"".join(lines), len(lines), left_out, without)


def _names_of_fields(item: Item) -> set[str]:
    """The fields of the item's messages."""
    return {
        name for message in item.messages if type(message) is not Message for name in field_names(message)
    }


def _on_one_line(row: bytes) -> bytes:
    """The row with its line end. A raw line end can only stand between tokens, where a space is as good."""
    return row.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def _only(kept: KeptRecords, wanted: list[bool]) -> KeptRecords:
    records = kept.records.filter(pl.Series(wanted, dtype=pl.Boolean))
    scores = kept.scores.join(records.select("row"), on="row", how="semi", maintain_order="left")
    return kept._replace(records=records, scores=scores)
