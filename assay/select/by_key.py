"""Values that need whole groups, or both sides of a row: worked on key by key, and given back by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from assay.select.expressions import GivenPair, InGroup, NamedColumn, Scope, ValueKind
from assay.select.frames import LINE, Dataset, Frames
from assay.select.groups import ANSWER, GROUP, GROUP_SIZE, LAST, sized, within_groups
from assay.select.sides import ROW_KEY, SIDE, between_sides
from assay.storage.buckets import BUCKET_ROWS, Buckets
from assay.storage.manifests import Converted

_PIECE = ".piece"
_KEYS = [_PIECE, "row", "turn"]


class _Exchange:
    """Rows that come piece by piece, are worked on key by key, and go back piece by piece."""

    def __init__(self, data: Dataset, folder: Path, name: str) -> None:
        self._bucket_of: dict[int, int] = {}
        turns = 0
        for number, piece in enumerate(data.converted.pieces):
            self._bucket_of[number] = turns // BUCKET_ROWS
            turns += piece.turn_count
        self._by_key = Buckets(folder, f"{name}-key", turns // BUCKET_ROWS + 1)
        self._by_piece = Buckets(folder, f"{name}-piece", turns // BUCKET_ROWS + 1)
        self._taken: tuple[int, dict[int, pl.DataFrame]] = (-1, {})

    def add(self, number: int, rows: pl.DataFrame, key: str) -> None:
        """Take in rows of a piece, which have ``row`` and ``turn``. Rows of one ``key`` come together."""
        rows = rows.with_columns(pl.lit(number, pl.UInt32).alias(_PIECE))
        self._by_key.add(rows, pl.col(key).hash().fill_null(0) % self._by_key.count)

    def work(self, made_of: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Have each bucket worked on; ``made_of`` gives a row for each of its rows, in their order."""
        for number in range(self._by_key.count):
            rows = self._by_key.rows(number)
            self._by_key.drop(number)
            if rows is not None:
                made = rows.select(_KEYS).hstack(made_of(rows).get_columns())
                bucket = pl.col(_PIECE).replace_strict(self._bucket_of, return_dtype=pl.UInt32)
                self._by_piece.add(made, bucket)

    def of_piece(self, number: int) -> pl.DataFrame | None:
        """What was made of a piece's rows, in their order; None where it has none."""
        bucket = self._bucket_of[number]
        if self._taken[0] != bucket:
            rows = self._by_piece.rows(bucket)
            parted = {} if rows is None else rows.sort(_KEYS).partition_by(_PIECE, as_dict=True)
            self._taken = (bucket, {int(key[0]): part for key, part in parted.items()})
        return self._taken[1].get(number)


class Groups:
    """The group functions of all turns, by way of buckets of whole groups."""

    def __init__(self, data: Dataset, folder: Path) -> None:
        self._group = data.wanted.group
        self._functions = data.wanted.of_type(InGroup)
        self._sizes = data.wanted.has_sizes
        sizes = [NamedColumn(GROUP_SIZE, Scope.GROUP)] if self._sizes else []
        self.values: list[NamedColumn | InGroup] = [*self._functions, *sizes]
        self._exchange = _Exchange(data, folder, "group")
        self._largest: Counter[str] = Counter()

    def add(self, number: int, frames: Frames) -> None:
        """Take in the turns of a piece."""
        rows = frames.turns.select("row", "turn", LAST, ANSWER, GROUP)
        operands = {one.operand.measured: one.operand for one in self._functions}
        of_turns = [name for name, operand in operands.items() if operand.of_turns]
        rows = rows.hstack(frames.turns.select(of_turns))
        of_records = [name for name in operands if name not in of_turns]
        if self._group is not None:
            rows = rows.drop(GROUP)
            of_records.append(self._group.measured)
        if of_records:
            named = frames.records.select("row", *dict.fromkeys(of_records), pl.lit(True).alias(LAST))
            rows = rows.join(named, on=["row", LAST], how="left", maintain_order="left")
        if self._group is not None:
            rows = rows.with_columns(pl.col(self._group.measured).alias(GROUP))
        self._exchange.add(number, rows, GROUP)

    def compare(self) -> list[str]:
        """Compute everything; what a person should know of it."""
        self._exchange.work(self._made)
        return [
            f"`{function}` compares nothing: every group has one member"
            for function in self._functions
            if self._largest[function.measured] == 1
        ]

    def _made(self, rows: pl.DataFrame) -> pl.DataFrame:
        found = within_groups(rows, self._functions)
        for name, most in found.largest.items():
            self._largest[name] = max(self._largest[name], most)
        return pl.DataFrame([*found.values.get_columns(), *([sized(rows)] if self._sizes else [])])

    def of_piece(self, number: int) -> pl.DataFrame:
        """The values of a piece's turns, in order."""
        found = self._exchange.of_piece(number)
        return found if found is not None else _no_rows(self.values)


class RowSides:
    """What a row's chosen and rejected records come to, by way of buckets of whole rows."""

    def __init__(self, data: Dataset, folder: Path) -> None:
        self._files = {file: number for number, file in enumerate(_files_of(data.converted))}
        self._pieces = data.converted.pieces
        self.pairs = data.wanted.of_type(GivenPair)
        self._exchange = _Exchange(data, folder, "sides")
        self._found = 0

    def add(self, number: int, frames: Frames) -> None:
        """Take in the records of a piece."""
        file = self._files[self._pieces[number].file]
        operands = dict.fromkeys(pair.operand.measured for pair in self.pairs)
        rows = frames.records.select(
            "row",
            pl.lit(0, pl.UInt32).alias("turn"),
            SIDE.measured,
            pl.format("{}:{}", pl.lit(file), pl.col(LINE)).alias(ROW_KEY),
            *operands,
        )
        self._found += rows.height - rows[SIDE.measured].null_count()
        self._exchange.add(number, rows, ROW_KEY)

    def compare(self) -> list[str]:
        """Compute everything; what a person should know of it."""
        self._exchange.work(lambda rows: between_sides(rows, self.pairs))
        return [] if self._found else ["no record came as chosen or rejected, so `agrees` is missing in all"]

    def of_piece(self, number: int) -> pl.DataFrame:
        """The values of a piece's records, in order."""
        found = self._exchange.of_piece(number)
        return found if found is not None else _no_rows(self.pairs)


def _files_of(converted: Converted) -> list[str]:
    return list(dict.fromkeys(piece.file for piece in converted.pieces))


def _no_rows(values: Sequence[NamedColumn | InGroup | GivenPair]) -> pl.DataFrame:
    """The values of a piece without records."""

    def dtype(value: NamedColumn | InGroup | GivenPair) -> type[pl.DataType]:
        if value.kind == ValueKind.BOOLEAN:
            return pl.Boolean
        if isinstance(value, NamedColumn) or value.function == "rank":
            return pl.UInt32
        return pl.Float32 if value.is_float32 else pl.Float64

    return pl.DataFrame(schema={value.measured: dtype(value) for value in values})
