"""Functions within the prompt's group: how an answer stands to the other answers to its prompt.

A group's members are the records that end with an answer to the prompt, and each answer to it in the middle
of a conversation, once: paths of one tree share such an answer, and it is no member where a record ends with
it. An answer without a value is no member. All functions are of one bucket: rows of whole groups.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import polars as pl

from assay.select.expressions import InGroup

#: Columns of the rows of a bucket, a row a turn.
GROUP = ".group"
"""What all rows of a group have in common, Binary or String; null for a row that is in no group."""
ANSWER = ".answer"
"""The key of the conversation through the turn."""
LAST = ".last"
"""Whether the record ends with the turn."""

GROUP_SIZE = "group_size"

_NUMBER = ".number"
_WEIGHT = ".weight"
_VALUE = ".value"
_BEST = ".best"
_BEST_COUNT = ".best_count"
_SECOND = ".second"
_MEAN = ".mean"
_DEVIATION = ".deviation"
_ORDER = ".order"


def sized(rows: pl.DataFrame) -> pl.Series:
    """How many members the group of each row has, as UInt32; null for a row in no group."""
    return _weighed(rows, pl.lit(0.0)).select(
        pl.when(pl.col(GROUP).is_not_null()).then(pl.col(_WEIGHT).sum().over(_NUMBER)).alias(GROUP_SIZE)
    )[GROUP_SIZE]


class WithinGroups(NamedTuple):
    """What the functions come to."""

    values: pl.DataFrame
    """A column for each function, a row for each row that was given, in their order."""
    largest: dict[str, int]
    """By function, how many members the largest group has."""


def within_groups(rows: pl.DataFrame, functions: Sequence[InGroup]) -> WithinGroups:
    """The values of the functions at each of ``rows``.

    ``rows`` has ``GROUP``, ``ANSWER`` and ``LAST``, and each operand's column. All rows of a group are among
    them. A row in no group, or without a value, gets none.
    """
    columns: list[pl.Series] = []
    largest: dict[str, int] = {}
    by_operand: dict[str, list[InGroup]] = {}
    for function in functions:
        by_operand.setdefault(function.operand.measured, []).append(function)
    for operand, its_functions in by_operand.items():
        frame = _weighed(rows, pl.col(operand)).select(_NUMBER, _VALUE, _WEIGHT)
        most = frame.group_by(_NUMBER).agg(pl.col(_WEIGHT).sum())[_WEIGHT].max()
        largest |= dict.fromkeys((function.measured for function in its_functions), int(most or 0))  # type: ignore[arg-type]
        columns += _compared(frame, its_functions)
    return WithinGroups(pl.DataFrame(columns), largest)


def _weighed(rows: pl.DataFrame, value: pl.Expr) -> pl.DataFrame:
    """The rows with a number for each group, the value as a float64, and a weight: 1 for each member.

    Among rows of one answer in the middle of conversations, the first has the weight 1 and the others 0.
    """
    finite = value.cast(pl.Float64)
    frame = rows.select(
        GROUP,
        ANSWER,
        LAST,
        pl.when(finite.is_finite() & pl.col(GROUP).is_not_null()).then(finite + 0.0).alias(_VALUE),
    )
    numbers = frame.select(GROUP).unique(maintain_order=True).with_row_index(_NUMBER)
    frame = frame.join(numbers, on=GROUP, how="left", maintain_order="left", nulls_equal=True)
    has_value = pl.col(_VALUE).is_not_null()
    if frame[LAST].all():
        return frame.with_columns(has_value.cast(pl.UInt32).alias(_WEIGHT))
    ends = frame.filter(LAST, has_value).select(ANSWER).unique().with_columns(pl.lit(True).alias(".ends"))
    frame = frame.join(ends, on=ANSWER, how="left", maintain_order="left")
    inner = ~pl.col(LAST) & has_value & pl.col(".ends").is_null()
    # Only inner answers are looked at: a struct with null for the others would count those as one.
    firsts = (
        frame.with_row_index(_ORDER)
        .filter(inner)
        .unique([_NUMBER, ANSWER], keep="first", maintain_order=True)
        .select(_ORDER, pl.lit(1, pl.UInt32).alias(".first"))
    )
    return (
        frame.with_row_index(_ORDER)
        .join(firsts, on=_ORDER, how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col(LAST) & has_value)
            .then(pl.lit(1, pl.UInt32))
            .otherwise(pl.col(".first").fill_null(0))
            .alias(_WEIGHT)
        )
        .drop(".ends", ".first", _ORDER)
    )


def _compared(frame: pl.DataFrame, functions: Sequence[InGroup]) -> list[pl.Series]:
    names = {function.function for function in functions}
    frame = frame.join(_of_groups(frame, names), on=_NUMBER, how="left", maintain_order="left")
    if "rank" in names:
        frame = frame.with_columns(_ranks(frame))
    return [
        frame.select(_expression(function).alias(function.measured)).to_series() for function in functions
    ]


def _of_groups(frame: pl.DataFrame, names: Collection[str]) -> pl.DataFrame:
    """A row a group with what the functions compare a value with."""
    value, weight = pl.col(_VALUE), pl.col(_WEIGHT)
    members = frame.filter(weight > 0)
    found = members.group_by(_NUMBER).agg(value.max().alias(_BEST), _mean(value).alias(_MEAN))
    if "margin" in names:
        best = members.join(found, on=_NUMBER).with_columns(is_best=value == pl.col(_BEST))
        counted = best.group_by(_NUMBER).agg(
            pl.col("is_best").sum().alias(_BEST_COUNT), value.filter(~pl.col("is_best")).max().alias(_SECOND)
        )
        found = found.join(counted, on=_NUMBER, how="left")
    if "zscore" in names:
        squares = (
            members.join(found, on=_NUMBER)
            .with_columns(square=(value - pl.col(_MEAN)) ** 2)
            .group_by(_NUMBER)
            .agg(
                # Rounding of the mean alone must not make a deviation of equal values.
                pl.when(value.min() == value.max())
                .then(pl.lit(0.0))
                .otherwise(_mean(pl.col("square")).sqrt())
                .alias(_DEVIATION)
            )
        )
        found = found.join(squares, on=_NUMBER, how="left")
    return found


def _mean(values: pl.Expr) -> pl.Expr:
    """The mean of a group's values. It is summed in their order, so that the order of rows moves no digit."""
    return values.sort().mean()


def _ranks(frame: pl.DataFrame) -> pl.Series:
    """1 + the number of members of the same group that are strictly better; null without a value."""
    better = (
        frame.with_row_index(_ORDER)
        .filter(pl.col(_VALUE).is_not_null())
        .sort(_NUMBER, _VALUE, descending=[False, True])
        .with_columns(before=pl.col(_WEIGHT).cum_sum().over(_NUMBER) - pl.col(_WEIGHT))
        .with_columns(rank=pl.col("before").min().over(_NUMBER, _VALUE) + 1)
        .select(_ORDER, pl.col("rank").cast(pl.UInt32))
    )
    indexed = frame.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias(_ORDER))
    return indexed.join(better, on=_ORDER, how="left", maintain_order="left")["rank"]


def _expression(function: InGroup) -> pl.Expr:
    value, best = pl.col(_VALUE), pl.col(_BEST)
    match function.function:
        case "rank":
            return pl.col("rank")
        case "margin":
            others = pl.when(value < best).then(best).when(pl.col(_BEST_COUNT) > 1).then(best)
            made = value - others.otherwise(pl.col(_SECOND))
        case "gap":
            made = best - value
        case "centred":
            made = value - pl.col(_MEAN)
        case "zscore":
            deviation = pl.col(_DEVIATION)
            made = pl.when(deviation > 0).then((value - pl.col(_MEAN)) / deviation)
    made = pl.when(made.is_finite()).then(made)
    return made.cast(pl.Float32) if function.is_float32 else made
