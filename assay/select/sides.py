"""Given preferences: how a model's numbers stand to what a person chose and rejected in one row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from assay.select.columns import COLUMNS
from assay.select.expressions import GivenPair, InGroup, parts
from assay.select.rules import Rules

#: What all records of one input row have in common.
ROW_KEY = ".row_key"
#: The column that tells the sides of a row apart.
SIDE = COLUMNS["side"].column


#: Formats whose rows hold what a person chose and what was rejected.
_OF_PREFERENCES = frozenset({"preference", "helpsteer_pairs"})


def both_sides_kept(formats: Iterable[str], rules: Rules) -> str | None:
    """What to say where rejected answers are kept beside chosen ones; None where rules tell them apart.

    ``formats`` are those of the inputs.
    """
    if not _OF_PREFERENCES.intersection(formats):
        return None
    told_apart = (
        isinstance(part, InGroup | GivenPair) or part == SIDE
        for rule in rules.rules
        for part in parts(rule.predicate)
    )
    if any(told_apart):
        return None
    return (
        "inputs hold preferences, and the files contain rejected answers as well as chosen ones. "
        "--keep \"side == 'chosen'\" keeps what was chosen; a preference export holds pairs"
    )


def between_sides(records: pl.DataFrame, pairs: Sequence[GivenPair]) -> pl.DataFrame:
    """A column for each of ``pairs``, a row for each of ``records``, in their order.

    ``records`` has ``ROW_KEY``, ``SIDE`` and each operand's column; all records of a row are among them. The
    margin is that of the worst chosen answer over the best rejected one, the same for all records of the row,
    also for one without a side. It is missing where a side has no value, and a model agrees where it is
    above 0.
    """
    columns = []
    for pair in pairs:
        value = pl.col(pair.operand.measured).cast(pl.Float64)
        finite = pl.when(value.is_finite()).then(value)
        side = pl.col(SIDE.measured)
        by_row = records.group_by(ROW_KEY).agg(
            finite.filter(side == "chosen").min().alias("chosen"),
            finite.filter(side == "rejected").max().alias("rejected"),
        )
        margin = pl.col("chosen") - pl.col("rejected")
        if pair.function == "agrees":
            made = margin > 0
        else:
            made = pl.when(margin.is_finite()).then(margin)
            made = made.cast(pl.Float32) if pair.is_float32 else made
        joined = records.select(ROW_KEY).join(by_row, on=ROW_KEY, how="left", maintain_order="left")
        columns.append(joined.select(made.alias(pair.measured)).to_series())
    return pl.DataFrame(columns)
