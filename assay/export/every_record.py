"""``records.parquet``: every record, kept or not, with what was decided and all scores, each column typed."""

from __future__ import annotations

import polars as pl

from assay.core.schema import SCORE
from assay.export.chat import message_type
from assay.export.contract import Columns, EveryRecord, Export
from assay.export.kept import Held, Item, KeptRecords
from assay.export.messages import with_same_keys
from assay.rewards.scalar import scalar_among


def columns(attributes: tuple[str, ...], given: tuple[str, ...], held: Held) -> Columns:
    """``score`` is the last turn's one number, where the model has one; ``scores`` has every turn's.

    What people gave a turn stands there too: ``given.NAME``, null where they did not rate it. Messages have
    the fields that any message of the run holds.
    """
    return {
        "file": pl.String(),
        "line": pl.UInt64(),
        "part": pl.UInt32(),
        "outcome": pl.String(),
        "reason": pl.String(),
        "roles": pl.String(),
        "messages": pl.List(message_type(held, everything=True)),
        **({"tools": pl.String()} if held.tools else {}),
        "labels": pl.List(pl.String),
        **({} if scalar_among(attributes) is None else {SCORE: pl.Float32()}),
        "scores": pl.List(
            pl.Struct(
                {
                    "turn": pl.UInt32,
                    **dict.fromkeys(attributes, pl.Float32),
                    **dict.fromkeys(given, pl.Float64),
                }
            )
        ),
        "extra": pl.String(),
    }


def frame(block: KeptRecords) -> pl.DataFrame:
    """A row a record of the block."""
    scalar = scalar_among(block.attributes)
    last = [] if scalar is None else [pl.col(scalar).last().alias(SCORE)]
    turns = block.scores.with_columns(block.given_numbers()).unnest("given") if block.given else block.scores
    scores = turns.group_by("row", maintain_order=True).agg(
        pl.struct("turn", *block.attributes, *block.given).alias("scores"), *last
    )
    joined = block.records.join(scores, on="row", how="left", maintain_order="left")
    return joined.with_columns(
        pl.lit(block.file).alias("file"),
        _messages(block).alias("messages"),
        pl.col("labels").str.json_decode(pl.List(pl.String)),
        pl.col("rest").alias("extra"),
    ).select(list(columns(block.attributes, block.given, block.held)))


def _messages(block: KeptRecords) -> pl.Series:
    texts = block.records["messages"]
    kind = pl.List(message_type(block.held, everything=True))
    if block.held.fields:
        texts = pl.Series(texts.name, [with_same_keys(text, block.held) for text in texts], pl.String)
    return texts.str.json_decode(kind)


PARQUET: Export[Item] = Export(
    name="parquet",
    file="records.parquet",
    description="every record, kept or not, with its decision and all scores, a table",
    row=EveryRecord(columns, frame),
    holds_sides=True,
)
