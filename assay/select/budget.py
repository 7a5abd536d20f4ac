"""A number of records instead of a threshold: which of the records that are left are the best."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import polars as pl

from assay.core.text import counted
from assay.select.groups import ANSWER
from assay.select.kinds import Quota
from assay.select.selection import Budget

#: Columns of the records that are left.
PIECE = ".piece"
BY = ".by"
PER = ".per"

#: Reason code of a record that is not among the best.
OVER_TARGET = "over_target"

#: So many values of ``--per`` have a note each.
_MOST_NAMED = 10

_CHOSEN = ".chosen"
_PLACE = ".place"
_PART = ".part"


class Spent(NamedTuple):
    """What a budget came to."""

    dropped: pl.DataFrame
    """``PIECE``, ``row`` and ``reason`` of each record that is not chosen."""
    notes: tuple[str, ...]
    """Sentences without a full stop, for a person."""


def spend(left: pl.DataFrame, budget: Budget) -> Spent:
    """The records that the budget does not hold.

    ``left`` has ``PIECE``, ``row``, ``ANSWER``, ``BY`` and ``PER`` of every record that is left. The largest
    ``BY`` are chosen; of equal ones those with the smaller key of their content, so that the order of the
    input decides nothing but between records of the same content. A record without a value comes last.
    """
    whole = budget.target.of(left.height)
    sizes = dict(left.group_by(PER).len().sort(PER, nulls_last=True).iter_rows())
    parts = quotas(sizes, whole, budget.quota)
    quota = pl.DataFrame(
        {PER: list(parts), _PART: list(parts.values())}, schema={PER: pl.String, _PART: pl.UInt32}
    )
    ranked = (
        left.sort(BY, ANSWER, PIECE, "row", descending=[True, False, False, False], nulls_last=True)
        .with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).over(PER).alias(_PLACE))
        .join(quota, on=PER, how="left", maintain_order="left", nulls_equal=True)
        .with_columns((pl.col(_PLACE) < pl.col(_PART)).alias(_CHOSEN))
    )
    chosen = ranked.filter(_CHOSEN).group_by(PER, maintain_order=True).agg(pl.col(BY).last())
    cuts: dict[str | None, float | None] = dict(chosen.iter_rows())
    dropped = ranked.filter(~pl.col(_CHOSEN)).select(
        PIECE, "row", pl.lit(f"{OVER_TARGET}: {budget.by} is not among the best").alias("reason")
    )
    return Spent(dropped, tuple(_notes(budget, sizes, parts, cuts)))


def quotas(sizes: Mapping[str | None, int], whole: int, quota: Quota) -> dict[str | None, int]:
    """How many records each part of the data has of ``whole``; never more than there are of it.

    ``proportional``: as its share of the data, the remainders going to the largest fractions. ``equal``:
    the same number each, and what a small part leaves is shared by the others. Of equal claims the first in
    the order of ``sizes`` is served first.

    >>> quotas({"de": 10, "en": 30}, 8, "proportional"), quotas({"de": 2, "en": 30}, 8, "equal")
    ({'de': 2, 'en': 6}, {'de': 2, 'en': 6})
    """
    total = sum(sizes.values())
    if quota == "proportional":
        exact = {part: Fraction(whole * size, total) for part, size in sizes.items()}
        given = {part: int(claim) for part, claim in exact.items()}
        by_fraction = sorted(exact, key=lambda part: given[part] - exact[part])
        for part in by_fraction[: whole - sum(given.values())]:
            given[part] += 1
        return given
    given = dict.fromkeys(sizes, 0)
    left = min(whole, total)
    while left:
        open_parts = [part for part in sizes if given[part] < sizes[part]]
        each = max(1, left // len(open_parts))
        for part in open_parts:
            more = min(each, sizes[part] - given[part], left)
            given[part] += more
            left -= more
    return given


def _notes(
    budget: Budget,
    sizes: Mapping[str | None, int],
    parts: Mapping[str | None, int],
    cuts: Mapping[str | None, float | None],
) -> list[str]:
    notes = []
    for part, size in islice(sizes.items(), _MOST_NAMED):
        cut = cuts.get(part)
        where = "" if budget.per is None else f" with {budget.per} {part if part is not None else 'missing'}"
        at = f", the last of them with {budget.by} {cut:.6g}" if cut is not None else ""
        notes.append(
            f"--target {budget.target.text} keeps {parts[part]:,} of {counted(size, 'records')}{where}{at}"
        )
    if len(sizes) > _MOST_NAMED:
        notes.append(f"--per {budget.per} has {len(sizes) - _MOST_NAMED:,} more values")
    return notes
