"""What an export is given: kept records with the scores of their turns, a block or an item at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import msgspec
import polars as pl

from assay.core.schema import Conversation
from assay.storage.conversations import conversation_of

_DECODE_LABELS = msgspec.json.Decoder(list[str | None]).decode


class KeptRecords(NamedTuple):
    """A bounded block of kept records of one file, in input order. Every turn has its scores."""

    file: str
    attributes: tuple[str, ...]
    """Empty where the run stops before scoring."""
    records: pl.DataFrame
    """``row``, ``line``, ``part``, ``roles``, ``messages`` (a JSON array), ``labels`` (a JSON array, or
    null), ``rest`` (a JSON object, or null), ``nemo_prompt``, ``tools`` (a JSON array, or null): as
    ``ConvertedPiece`` has them."""
    scores: pl.DataFrame
    """``row``, ``turn``, a Float32 column an attribute, and ``given`` (what people gave the turn: a JSON
    object of numbers, or null); the records' turns, ordered."""


class Item(NamedTuple):
    """A kept record."""

    file: str
    line: int
    part: int
    roles: str
    """A letter a message: ``suaua``, and ``c`` for an assistant's call of tools."""
    messages: Conversation
    labels: list[str | None] | None
    """Those that it came with, one a message; None where it came with none."""
    attributes: tuple[str, ...]
    scores: list[tuple[float, ...]]
    """Of each turn a number an attribute. Empty where the run stops before scoring."""
    rest: str | None
    """The other fields of the input row as one JSON object, to the digit as they were written."""
    nemo_prompt: str | None = None
    """NeMo-Aligner's text of all between the system message and the last, where the input had it so."""
    tools: str | None = None
    """The tools that the assistant could call, as a JSON array."""


def items_of(kept: KeptRecords) -> Iterator[Item]:
    """Yield the records of a block one by one; ValueError where its scores are not of its turns."""
    if kept.attributes and kept.scores["row"].to_list() != _rows_of_turns(kept.records):
        raise ValueError(f"{kept.file}: the scores run out of step with the records")
    scores = kept.scores.select(kept.attributes).iter_rows()
    columns = kept.records.select(
        "line", "part", "roles", "messages", "labels", "rest", "nemo_prompt", "tools"
    )
    for line, part, roles, messages, labels, rest, nemo_prompt, tools in columns.iter_rows():
        yield Item(
            kept.file,
            line,
            part,
            roles,
            conversation_of(messages),
            None if labels is None else _DECODE_LABELS(labels),
            kept.attributes,
            list(islice(scores, roles.count("a"))),
            rest,
            nemo_prompt,
            tools,
        )


def _rows_of_turns(records: pl.DataFrame) -> list[int]:
    turns = zip(records["row"], records["roles"], strict=True)
    return [row for row, roles in turns for _ in range(roles.count("a"))]
