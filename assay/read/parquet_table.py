"""A Parquet file as the decoding process reads it: with polars, held against the footer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from assay.read.damage import DamagedTable
from assay.read.parquet_footer import Column, Group, check_sums, read_groups
from assay.storage.regular import open_regular


class ParquetTable:
    """An open Parquet file; DamagedTable where its footer cannot be read."""

    unit = "row group"
    cut = None

    def __init__(self, path: str) -> None:
        self._path = path
        with open_regular(path) as file:
            self.groups: Sequence[Group] = read_groups(file)
        pl.scan_parquet(path, glob=False).collect_schema()

    def bytes_of(self, first: int, last: int) -> int:
        """How many bytes groups ``first`` to ``last`` take when they are decoded, roughly."""
        return sum(group.unpacked_bytes + group.length for group in self.groups[first : last + 1])

    def decoded(self, first: int, last: int) -> pl.DataFrame:
        """The rows of groups ``first`` to ``last``; DamagedTable where the footer states others."""
        chosen = self.groups[first : last + 1]
        rows = sum(group.rows for group in chosen)
        with open_regular(self._path) as file:
            for group in chosen:
                check_sums(file, group)
        before = sum(group.rows for group in self.groups[:first])
        # Not collect_batches: in polars 2.1 it stops where decoding panics, as if the file ended there.
        frame = pl.scan_parquet(self._path, glob=False).slice(before, rows).collect()
        if len(frame) != rows:
            raise DamagedTable(f"{len(frame)} rows came out, where the footer states {rows}")
        _check_counts(frame, chosen)
        return frame


def _check_counts(frame: pl.DataFrame, groups: Sequence[Group]) -> None:
    """Raise DamagedTable where a column holds more or fewer values, or bytes, than the footer states.

    Damaged levels of nulls leave the number of rows as it is, but move values to other rows.
    """
    found = [leaf for column in frame for leaf in leaves(column)]
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
        raise DamagedTable(
            f"column {columns[0].name} holds {found} {what.replace('_', ' ')}, where the footer states "
            f"{sum(stated)}"
        )


def leaves(column: pl.Series) -> Iterator[pl.Series]:
    """Yield the columns inside ``column`` that hold values, in the order of the schema."""
    if isinstance(column.dtype, pl.Struct):
        present = column.drop_nulls()
        for field in column.dtype.fields:
            yield from leaves(present.struct.field(field.name))
    elif isinstance(column.dtype, pl.List | pl.Array):
        yield from leaves(column.drop_nulls().explode())
    else:
        yield column
