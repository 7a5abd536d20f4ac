"""Duplicates among the records that are left: which of them say the same, and which one of them stays.

Texts are equal (``exact``) or share most of their word shingles (``near``: ``signatures.py`` finds these).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from assay.core.digests import running_digest
from assay.core.text import counted
from assay.select.budget import BY, PIECE
from assay.select.groups import ANSWER
from assay.select.selection import Duplicates

#: What is compared of a record, 16 bytes: equal where it says the same.
CONTENT = ".content"

#: Reason code of a record that says the same as another.
DUPLICATE = "duplicate"

#: What records of one text, or of texts that are alike, have in common.
CLUSTER = ".cluster"


class WithoutDuplicates(NamedTuple):
    """What duplicates there were."""

    dropped: pl.DataFrame
    """``PIECE``, ``row`` and ``reason`` of each record that says the same as another that stays."""
    notes: tuple[str, ...]


def content_key(text: str) -> bytes:
    """16 bytes that equal texts have in common."""
    running = running_digest()
    running.update(text.encode())
    return running.digest()


def without_duplicates(
    left: pl.DataFrame, duplicates: Duplicates, clusters: pl.DataFrame | None, files: Sequence[str]
) -> WithoutDuplicates:
    """The records that say the same as a better one, or as an earlier one.

    ``left`` has ``PIECE``, ``row``, ``line``, ``CONTENT``, ``ANSWER`` and ``BY`` of every record that is
    left; ``clusters`` has ``CONTENT`` and ``CLUSTER`` of every text, or is None where only equal texts say
    the same; ``files`` names the file of each piece. Of each cluster the record of the largest ``BY`` stays,
    of equal ones that with the smaller key of its content; without an order, the first of the input.
    """
    keyed = left.with_columns(pl.col(CONTENT).alias(CLUSTER))
    if clusters is not None:
        keyed = left.join(clusters, on=CONTENT, how="left", maintain_order="left")
    order, descending = ([BY, ANSWER], [True, False]) if duplicates.by is not None else ([], [])
    ranked = keyed.sort([*order, PIECE, "row"], descending=[*descending, False, False], nulls_last=True)
    first = ranked.unique(CLUSTER, keep="first", maintain_order=True)
    best = first.select(CLUSTER, pl.col(PIECE).alias("best_piece"), pl.col("row").alias("best_row"), "line")
    others = keyed.drop("line").join(best, on=CLUSTER, how="left", maintain_order="left")
    others = others.filter((pl.col(PIECE) != pl.col("best_piece")) | (pl.col("row") != pl.col("best_row")))
    names = pl.col("best_piece").replace_strict(dict(enumerate(files)), return_dtype=pl.String)
    reason = pl.concat_str(pl.lit(f"{DUPLICATE}: of "), names, pl.lit(":"), pl.col("line").cast(pl.String))
    dropped = others.select(PIECE, "row", reason.alias("reason"))
    repeated = others[CLUSTER].n_unique()
    note = (
        f"--dedup {duplicates.kind} drops {counted(dropped.height, 'records')}, of "
        f"{counted(repeated, 'clusters')} that say the same ({duplicates.over})"
    )
    return WithoutDuplicates(dropped, (note,) if dropped.height else ())
