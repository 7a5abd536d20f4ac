"""``messages.jsonl``: the messages as they are, each turn's raw scores, and where the record came from.

Nothing of a record is lost. Every column has one type in all rows, so that ``datasets`` loads the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import polars as pl

from assay.core.schema import SCORE
from assay.export.chat import messages_of
from assay.export.contract import AtOnce, Export, Outcome
from assay.export.kept import Held, Item, KeptRecords
from assay.export.turned import MASKED_TURNS, MASKS, weighed
from assay.storage.conversations import conversation_of

_ENCODE = msgspec.json.Encoder().encode


def lines(kept: KeptRecords) -> bytes:
    """A line a record: ``messages``, ``tools``, ``score``, ``scores``, ``source``, ``extra``.

    Messages have the fields that any message of the run holds, null where one does not hold it; arguments of
    calls are texts. A turn that a rule masks has ``"weight": 0``. ``tools`` are those that the assistant
    could call, one text that is a JSON array; rows of runs without any have no such field. ``score`` is the
    last turn's one number; lines of a model that has none have no such field. A score has the fewest digits
    that give the same float32. ``extra`` is what else the input row held, one text that is a JSON object with
    every digit as it was written: rows of other fields then have one type. It is null in all rows where no
    record of the run has other fields. ``datasets`` takes a column's type from the first 10 MB of a file, and
    dies on a text where these hold null alone. A turn has ``given.NAME`` beside the model's scores where
    people rated any turn of the run: null where they did not rate this one.
    """
    return _lines(kept)


def dropped_lines(dropped: KeptRecords) -> bytes:
    """The same of records that were dropped, with the ``reason`` in front."""
    return _lines(dropped, pl.lit('"reason":'), _quoted_text("reason"), pl.lit(","))


def _lines(kept: KeptRecords, *first: pl.Expr) -> bytes:
    scalar = kept.one_number
    last = pl.lit("") if scalar is None else pl.format(f'"{SCORE}":{{}},', _number(scalar).last())
    records = _weighed(kept)
    if kept.held.fields:
        same = [with_same_keys(text, kept.held) for text in records["messages"]]
        records = records.with_columns(pl.Series("messages", same, pl.String))
    turns = kept.scores.with_columns(kept.given_numbers()).unnest("given") if kept.given else kept.scores
    scores = turns.group_by("row", maintain_order=True).agg(
        _score_of_turn(kept.attributes, kept.given).str.join(",").alias("scores"), last.alias("score")
    )
    written: str = (
        records.join(scores, on="row", how="left", maintain_order="left")
        .select(
            pl.concat_str(
                pl.lit("{"),
                *first,
                pl.lit('"messages":'),
                _on_one_line("messages").fill_null("null"),
                pl.lit(","),
                *_tools(kept),
                pl.col("score").fill_null("" if scalar is None else f'"{SCORE}":null,'),
                pl.lit('"scores":['),
                pl.col("scores").fill_null(""),
                pl.lit(f'],"source":{{"file":{_quoted(kept.file)},"line":'),
                pl.col("line").cast(pl.String),
                pl.lit(',"part":'),
                pl.col("part").cast(pl.String),
                pl.lit('},"extra":'),
                _quoted_text("rest").fill_null('"{}"' if kept.some_have_rest else "null"),
                pl.lit("}\n"),
            ).str.join("")
        )
        .item()
    )
    return written.encode()


def _tools(kept: KeptRecords) -> Iterator[pl.Expr]:
    if kept.held.tools:
        # Not null: ``datasets`` takes a column's type from the first 10 MB, as of ``extra``.
        yield pl.format('"tools":{},', _quoted_text("tools").fill_null('"[]"'))


def with_same_keys(messages: str | None, held: Held) -> str | None:
    """The JSON array with the keys in every message that any message of the run has; None stays None."""
    if messages is None:
        return None
    return _ENCODE(messages_of(conversation_of(messages), held, everything=True)).decode()


def _weighed(kept: KeptRecords) -> pl.DataFrame:
    """The records, with a weight on turns that are masked."""
    if not kept.have_masks:
        return kept.records
    weighed_or_not = [
        weighed(roles, messages, masked) if masked else messages
        for roles, messages, masked in kept.records.select("roles", "messages", MASKED_TURNS).iter_rows()
    ]
    return kept.records.with_columns(pl.Series("messages", weighed_or_not, pl.String))


def _score_of_turn(attributes: Sequence[str], given: Sequence[str]) -> pl.Expr:
    parts: list[pl.Expr] = [pl.lit('{"turn":'), pl.col("turn").cast(pl.String)]
    for attribute in attributes:
        parts += [pl.lit(f",{_quoted(attribute)}:"), _number(attribute)]
    for name in given:
        parts += [pl.lit(f",{_quoted(name)}:"), _number(name).fill_null("null")]
    return pl.concat_str(*parts, pl.lit("}"))


def _number(attribute: str) -> pl.Expr:
    """The shortest text that parses back to the same float, as polars casts it, which is JSON too."""
    return pl.col(attribute).cast(pl.String)


def _on_one_line(column: str) -> pl.Expr:
    """JSON text without line ends: a raw one can only stand between tokens, where a space is as good."""
    return pl.col(column).str.replace_all(r"[\r\n]", " ")


def _quoted_text(column: str) -> pl.Expr:
    """The text as a JSON string; null stays null. polars writes one as the only field of an object."""
    written = pl.struct(pl.col(column).alias("t")).struct.json_encode()
    return pl.when(pl.col(column).is_not_null()).then(written.str.slice(len('{"t":')).str.strip_suffix("}"))


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


MESSAGES: Export[Item] = Export(
    name="messages",
    file="messages.jsonl",
    description="messages with raw scores, and all else that the record came with",
    version=2,
    row=AtOnce(lines),
    holds=MASKS,
)

#: Not a trainer's: for a person who wants to see what a rule costs.
DROPPED: Export[Item] = Export(
    name="dropped",
    file="dropped.jsonl",
    description="what was dropped, with its reason and scores; no trainer's",
    row=AtOnce(dropped_lines, Outcome.DROPPED),
)
