"""Turns without a score: which they are, and why."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

#: Reason code for a score that is NaN or infinite and has no reason of its own.
NOT_A_NUMBER = "not_a_number"
#: Reason code for a score that is missing and has no reason of its own.
NO_SCORE = "no_score"


def is_unscored(attributes: Sequence[str]) -> pl.Expr:
    """True for a turn with a reason, or without a finite number for one of the attributes."""
    return pl.any_horizontal(
        [pl.col("reason").is_not_null()]
        + [pl.col(attribute).is_null() | ~pl.col(attribute).is_finite() for attribute in attributes]
    ).fill_null(True)


def reason_of_turn(attributes: Sequence[str]) -> pl.Expr:
    """The turn's reason with the turn's number after its code: ``too_long: turn 2: 5000 tokens``."""
    any_null = pl.any_horizontal([pl.col(attribute).is_null() for attribute in attributes])
    reason = pl.coalesce("reason", pl.when(any_null).then(pl.lit(NO_SCORE)).otherwise(pl.lit(NOT_A_NUMBER)))
    code_and_detail = reason.str.splitn(":", 2)
    detail = code_and_detail.struct.field("field_1").str.strip_chars()
    return pl.concat_str(
        code_and_detail.struct.field("field_0"),
        pl.lit(": turn "),
        pl.col("turn").cast(pl.String),
        pl.when(detail.is_null() | (detail == "")).then(pl.lit("")).otherwise(pl.lit(": ") + detail),
    )
