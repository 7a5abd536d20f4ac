"""What becomes of the records that rules leave: evaluation data and duplicates go, then a target is met."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from assay.select.budget import BY, PER, PIECE, spend
from assay.select.columns import texts_of
from assay.select.contamination import EvaluationTexts
from assay.select.duplicates import CONTENT, content_key, without_duplicates
from assay.select.expressions import Expression, Value
from assay.select.frames import Frames
from assay.select.groups import ANSWER, GROUP
from assay.select.kinds import Over
from assay.select.selection import Selection
from assay.storage.artifacts import read_artifact
from assay.storage.home import Home
from assay.storage.manifests import Converted

if TYPE_CHECKING:
    from assay.select.signatures import Signatures


class Settled(NamedTuple):
    """What is dropped of the records that the rules leave."""

    dropped: pl.DataFrame
    """``PIECE``, ``row`` and ``reason``."""
    notes: tuple[str, ...]


def needed(selection: Selection) -> tuple[Expression, ...]:
    """The values that have to be measured for it."""
    budget, duplicates = selection.budget, selection.duplicates
    values: list[Value | None] = [] if budget is None else [budget.by, budget.per]
    values += [] if duplicates is None else [duplicates.by]
    values.append(selection.order)
    return tuple(value for value in values if value is not None)


class AfterRules:
    """Takes in, piece by piece, the records that the rules leave, and then says which of them go."""

    def __init__(self, selection: Selection, converted: Converted, home: Home, folder: Path) -> None:
        """``folder`` is there, and the caller removes it."""
        self._selection = selection
        self._converted = converted
        self._home = home
        self._left: list[pl.DataFrame] = []
        self._contaminated: list[pl.DataFrame] = []
        duplicates = selection.duplicates
        self._signatures: Signatures | None = None
        if duplicates is not None and duplicates.kind == "near":
            # Import it here, for numpy takes a while and few runs need it.
            from assay.select.signatures import Signatures

            self._signatures = Signatures(folder, duplicates.near)
        self._evaluation = EvaluationTexts(selection.evaluation) if selection.evaluation else None

    def add(self, number: int, kept: pl.DataFrame, frames: Frames) -> None:
        """Take in a piece's records; ``kept`` has the ``row`` of those that the rules leave."""
        if not kept.height:
            return
        budget = self._selection.budget
        per = None if budget is None else budget.per
        left = kept.join(frames.records, on="row", how="left", maintain_order="left").select(
            pl.lit(number, pl.UInt32).alias(PIECE),
            "row",
            ANSWER,
            GROUP,
            finite(self._selection.by).alias(BY),
            (pl.lit(None, pl.String) if per is None else pl.col(per.measured).cast(pl.String)).alias(PER),
        )
        left = self._without_evaluation(left, number)
        self._left.append(self._with_content(left, number).drop(GROUP))

    def _without_evaluation(self, left: pl.DataFrame, number: int) -> pl.DataFrame:
        if self._evaluation is None:
            return left
        reasons = [self._evaluation.reason(text) for text in self._texts(left, number, "whole")]
        marked = left.with_columns(pl.Series("reason", reasons, pl.String))
        self._contaminated.append(
            marked.filter(pl.col("reason").is_not_null()).select(PIECE, "row", "reason")
        )
        return marked.filter(pl.col("reason").is_null()).drop("reason")

    def _with_content(self, left: pl.DataFrame, number: int) -> pl.DataFrame:
        """The records with their line and their ``CONTENT``, where duplicates are looked for."""
        duplicates = self._selection.duplicates
        if duplicates is None:
            return left
        lines = read_artifact(self._converted.pieces[number].records, self._home, ["row", "line"])
        left = left.join(lines, on="row", how="left", maintain_order="left")
        if duplicates.kind == "exact" and duplicates.over != "answer":
            key = ANSWER if duplicates.over == "whole" else GROUP
            return left.with_columns(pl.col(key).alias(CONTENT))
        texts = self._texts(left, number, duplicates.over)
        keys = [content_key(text) for text in texts]
        if self._signatures is not None:
            different = dict(zip(keys, texts, strict=True))
            self._signatures.add(list(different), list(different.values()))
        return left.with_columns(pl.Series(CONTENT, keys, pl.Binary))

    def _texts(self, left: pl.DataFrame, number: int, over: Over) -> Sequence[str]:
        records = read_artifact(
            self._converted.pieces[number].records, self._home, ["row", "roles", "messages"]
        )
        theirs = left.select("row").join(records, on="row", how="left", maintain_order="left")
        return [texts_of(roles, messages, over) for _, roles, messages in theirs.iter_rows()]

    def settle(self) -> Settled:
        """What goes, once every piece is taken in: evaluation data, then duplicates, then over the target."""
        budget, duplicates = self._selection.budget, self._selection.duplicates
        dropped = list(self._contaminated)
        notes: list[str] = []
        if self._evaluation is not None:
            gone = sum(frame.height for frame in dropped)
            notes.append(f"--decontaminate drops {gone:,} records that share 13 words with evaluation files")
        if not self._left:
            return Settled(_together(dropped), tuple(notes))
        left = pl.concat(self._left)
        self._left = []
        if duplicates is not None:
            files = [piece.file for piece in self._converted.pieces]
            clusters = None if self._signatures is None else self._signatures.clusters()
            found = without_duplicates(left, duplicates, clusters, files)
            dropped.append(found.dropped)
            notes += found.notes
            left = left.join(found.dropped.select(PIECE, "row"), on=[PIECE, "row"], how="anti")
        if budget is not None and left.height:
            spent = spend(left, budget)
            dropped.append(spent.dropped)
            notes += spent.notes
        return Settled(_together(dropped), tuple(notes))


def finite(value: Value | None) -> pl.Expr:
    """The value as a number; null where it is missing or not finite."""
    if value is None:
        return pl.lit(None, pl.Float64)
    number = pl.col(value.measured).cast(pl.Float64)
    return pl.when(number.is_finite()).then(number)


def _together(dropped: Sequence[pl.DataFrame]) -> pl.DataFrame:
    schema = {PIECE: pl.UInt32, "row": pl.UInt32, "reason": pl.String}
    return pl.concat([pl.DataFrame(schema=schema), *dropped])
