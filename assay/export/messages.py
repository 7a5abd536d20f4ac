"""``messages.jsonl``: the messages as they are, each turn's raw scores, and where the record came from.

TRL, Axolotl and OpenAI's fine-tuning load the ``messages`` of such lines; the rest is for a person, or
for a filter of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import polars as pl

from assay.core.schema import SCORE
from assay.export.contract import AtOnce, Export
from assay.export.kept import KeptRecords
from assay.rewards.scalar import scalar_among


def lines(kept: KeptRecords) -> bytes:
    """A line a record: ``messages``, ``tools``, ``score``, ``scores``, ``source``, ``extra``.

    ``tools`` are those that the assistant could call; a record without any has no such field. ``score`` is
    the last turn's one number; lines of a model that has none have no such field. A score has the fewest
    digits that give the same float32. ``extra`` is what else the input row held, to the digit as it was
    written, or null. A turn that people rated has ``given.NAME`` beside the model's scores.
    """
    scalar = scalar_among(kept.attributes)
    last = pl.lit("") if scalar is None else pl.format(f'"{SCORE}":{{}},', _number(scalar).last())
    scores = kept.scores.group_by("row", maintain_order=True).agg(
        _score_of_turn(kept.attributes).str.join(",").alias("scores"), last.alias("score")
    )
    written: str = (
        kept.records.join(scores, on="row", how="left", maintain_order="left")
        .select(
            pl.concat_str(
                pl.lit('{"messages":'),
                _on_one_line("messages"),
                pl.format(',"tools":{}', "tools").fill_null(""),
                pl.lit(","),
                pl.col("score").fill_null(""),
                pl.lit('"scores":['),
                pl.col("scores").fill_null(""),
                pl.lit(f'],"source":{{"file":{_quoted(kept.file)},"line":'),
                pl.col("line").cast(pl.String),
                pl.lit(',"part":'),
                pl.col("part").cast(pl.String),
                pl.lit('},"extra":'),
                _on_one_line("rest").fill_null("null"),
                pl.lit("}\n"),
            ).str.join("")
        )
        .item()
    )
    return written.encode()


def _score_of_turn(attributes: Sequence[str]) -> pl.Expr:
    parts: list[pl.Expr] = [pl.lit('{"turn":'), pl.col("turn").cast(pl.String)]
    for attribute in attributes:
        parts += [pl.lit(f",{_quoted(attribute)}:"), _number(attribute)]
    return pl.concat_str(*parts, _given(), pl.lit("}"))


def _given() -> pl.Expr:
    """What people gave the turn, a field each; empty where they gave nothing."""
    fields = pl.col("given").str.strip_prefix("{").str.strip_suffix("}")
    return pl.format(",{}", fields).fill_null("")


def _number(attribute: str) -> pl.Expr:
    """The shortest text that parses back to the same Float32, as polars casts it, which is JSON too."""
    return pl.col(attribute).cast(pl.String)


def _on_one_line(column: str) -> pl.Expr:
    """JSON text without line ends: a raw one can only stand between tokens, where a space is as good."""
    return pl.col(column).str.replace_all(r"[\r\n]", " ")


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


MESSAGES = Export(
    name="messages",
    file="messages.jsonl",
    description="messages with raw scores (TRL, Axolotl, OpenAI fine-tuning)",
    row=AtOnce(lines),
)
