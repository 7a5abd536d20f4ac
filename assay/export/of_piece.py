"""What export reads of a piece: its records as they were decided, its turns with their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import polars as pl
import polars.selectors as cs

from assay.core.errors import AssayError
from assay.core.schema import SCORE
from assay.export.kept import ORDER, KeptRecords
from assay.export.turned import turned, turns_left
from assay.rewards.scalar import scalar_among
from assay.storage.artifacts import artifacts_of, read_artifact
from assay.storage.home import Home
from assay.storage.manifests import ConvertedPiece, FilteredPiece, ScoredPiece

#: Columns of a piece's records: where each stands in its file,
PLACE_IN_FILE = ["row", "line", "part", "offset", "length"]
#: and what it holds.
CONTENTS = ["roles", "messages", "labels", "rest", "nemo_prompt", "tools"]

#: Exports are given so many kept records at a time.
_KEPT_AT_A_TIME = 2048


def scored_turns(
    piece: ConvertedPiece,
    scored: ScoredPiece | None,
    filtered: FilteredPiece,
    attributes: Sequence[str],
    home: Home,
) -> pl.DataFrame:
    """A piece's turns with their scores, and with ``ORDER`` where there is one; none before scoring."""
    if scored is None:
        return pl.DataFrame(schema={"row": pl.UInt32, "turn": pl.UInt32, "given": pl.String})
    turns = read_artifact(scored.scores, home, ["row", "turn", *attributes, "reason", "tokens_cut"])
    if turns.height != piece.turn_count:
        place = artifacts_of(home).place_of(scored.scores.path)
        raise AssayError(
            f"{place}: scores of {turns.height} turns where the piece has {piece.turn_count}. "
            "Remove it and run again: it is made anew."
        )
    given = read_artifact(piece.turns, home, ["given"])
    turns = turns.hstack(given)
    if filtered.order is None:
        return turns
    order = read_artifact(filtered.order, home, ["row", "turn", "by"]).rename({"by": ORDER})
    return turns.join(order, on=["row", "turn"], how="left", maintain_order="left")


def with_given(turns: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The turns with a column for each ``given.NAME``."""
    if not names:
        return turns
    numbers = [{} if text is None else msgspec.json.decode(text) for text in turns["given"]]
    return turns.with_columns(
        pl.Series(name, [one.get(name) for one in numbers], pl.Float64) for name in names
    )


def named(turns: pl.DataFrame, records: pl.DataFrame, attributes: Sequence[str]) -> pl.DataFrame:
    """The turns with their record's place, and with ``score`` where the model has one number."""
    scalar = scalar_among(attributes) or (ORDER if ORDER in turns.columns else None)
    named = turns if scalar is None else turns.with_columns(pl.col(scalar).cast(pl.Float32).alias(SCORE))
    return named.join(records.select("row", "line", "part"), on="row", how="left", maintain_order="left")


def judged_records(records: pl.DataFrame, filtered: FilteredPiece, home: Home) -> pl.DataFrame:
    """The records with the ``outcome`` and ``reason`` that were decided."""
    decided = read_artifact(filtered.decisions, home, ["row", "outcome", "reason"])
    if decided.height != records.height:
        place = artifacts_of(home).place_of(filtered.decisions.path)
        raise AssayError(
            f"{place}: {decided.height} decisions on {records.height} records. "
            "Remove it and run again: it is made anew."
        )
    return records.join(decided, on="row", how="left", maintain_order="left")


def turns_decided(filtered: FilteredPiece, home: Home) -> pl.DataFrame | None:
    """What was decided on a piece's turns; None where records are kept whole."""
    if filtered.turns is None:
        return None
    return read_artifact(filtered.turns, home, ["row", "turn", "outcome", "reason"])


def with_verdicts(
    records: pl.DataFrame, decided: pl.DataFrame | None, desirable: FilteredPiece | None, home: Home
) -> pl.DataFrame:
    """The records with ``desirable``: whether the rule on that keeps the last turn that is left; or null."""
    if desirable is None:
        return records.with_columns(pl.lit(None, pl.Boolean).alias("desirable"))
    verdicts = turns_decided(desirable, home)
    if verdicts is None:
        kept = judged_records(records.select("row"), desirable, home)["outcome"] == "kept"
        return records.with_columns(kept.alias("desirable"))
    last = turns_left(verdicts, decided).group_by("row", maintain_order=True).last()
    of_last = last.select("row", (pl.col("outcome") == "kept").alias("desirable"))
    return records.join(of_last, on="row", how="left", maintain_order="left")


def every_turn(turns: pl.DataFrame, decided: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """A row for each of the turns, with its record's place. A turn that no rule judged is as its record."""
    return (
        turns.select("row", "turn")
        .join(decided, on=["row", "turn"], how="left", maintain_order="left")
        .join(
            judged.select("row", "line", "part", pl.col("outcome", "reason").name.suffix("_of_record")),
            on="row",
            how="left",
            maintain_order="left",
        )
        .with_columns(
            pl.when(pl.col("outcome").is_null()).then("reason_of_record").otherwise("reason").alias("reason"),
            pl.coalesce("outcome", "outcome_of_record").alias("outcome"),
        )
    )


def kept_blocks(
    file: str,
    judged: pl.DataFrame,
    turns: pl.DataFrame,
    attributes: tuple[str, ...],
    decided: pl.DataFrame | None,
) -> Iterator[KeptRecords]:
    """Yield a piece's kept records, cut where a turn's decision says so, a bounded number at a time."""
    kept = judged.filter(pl.col("outcome") == "kept").select("row", "line", "part", "desirable", *CONTENTS)
    yield from blocks_of_records(file, turned(kept, decided), turns_left(turns, decided), attributes)


def blocks_of_records(
    file: str, records: pl.DataFrame, turns: pl.DataFrame, attributes: tuple[str, ...]
) -> Iterator[KeptRecords]:
    """Yield the records, a bounded number at a time."""
    scores = turns.select("row", "turn", *attributes, "given", cs.by_name(ORDER, require_all=False))
    for few in records.iter_slices(_KEPT_AT_A_TIME):
        of_them = scores.join(few.select("row"), on="row", how="semi", maintain_order="left")
        yield KeptRecords(file, attributes, few, of_them)


def placed(file: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the name of its input."""
    return frame.with_columns(pl.lit(file).alias("file"))
