"""SteerLM rows, every assistant turn labelled; NeMo-Aligner loads them.

``labeled.jsonl`` has labels made of the scores, ``converted.jsonl`` the labels that the records came with.
``nemo-aligner/regression.jsonl`` is what NeMo-Aligner's process_to_regression_format.py makes of
``labeled.jsonl``: a row a turn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

import polars as pl
from msgspec import Raw

from assay.core import steerlm
from assay.core.labels import label_expression, label_from_scores
from assay.core.schema import ATTRIBUTES, Message
from assay.export.contract import Export, PlainRows, Unit
from assay.export.kept import Item, KeptRecords
from assay.rewards.named import plain_names


def refuses(item: Item) -> str | None:
    """Why no SteerLM row can express the messages; None where one can."""
    return steerlm.gap(item.roles)


def _label(columns: tuple[str, ...], values: Sequence[float]) -> str:
    """The label of a turn with these values; of several models, each attribute is of one of them."""
    names, places = _of_labels(columns)
    return label_from_scores(names, [values[place] for place in places])


@lru_cache
def _of_labels(columns: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The attributes that labels have, and where their values stand."""
    found = [(name, place) for place, name in enumerate(plain_names(columns)) if name in ATTRIBUTES]
    return tuple(name for name, _ in found), tuple(place for _, place in found)


def labelled(item: Item) -> Raw:
    """The row with labels made of the scores, which ``assay.core.labels`` alone rounds."""
    labels = iter([_label(item.attributes, values) for values in item.scores])
    return _row(item, [next(labels) if message.role == "assistant" else None for message in item.messages])


def as_it_came(item: Item) -> Raw:
    """The row with the labels that the record came with."""
    return _row(item, item.labels)


def _row(item: Item, labels: Sequence[str | None] | None) -> Raw:
    return Raw(steerlm.to_json(*_as_nemo_has_them(item, labels)))


def _as_nemo_has_them(
    item: Item, labels: Sequence[str | None] | None
) -> tuple[Sequence[Message], Sequence[str | None] | None]:
    """The messages and their labels: HelpSteer2's prompts of several turns as NeMo-Aligner's one turn."""
    messages = item.messages
    if item.nemo_prompt is None:
        return messages, labels
    first = int(item.roles.startswith("s"))
    return (
        (*messages[:first], Message("user", item.nemo_prompt), messages[-1]),
        None if labels is None else [*labels[:first], None, labels[-1]],
    )


def plain_lines(kept: KeptRecords) -> pl.Series:
    """The rows of plain records that have no ``gap``, as ``labelled`` writes them, by polars.

    A message's text is taken as it stands in the JSON that the record has: msgspec, which wrote it, escapes
    the same characters in the same way as Python's json.
    """
    names, places = _of_labels(kept.attributes)
    rated = kept.scores.select(
        pl.col(kept.attributes[n]).alias(name) for name, n in zip(names, places, strict=True)
    )
    for name in names:
        if rated[name].is_nan().any():
            raise ValueError(f"{name} is not a number")
    labels = rated.select(label_expression(names).alias("label"))["label"]
    inner = pl.col("messages").str.strip_prefix('[{"role":"').str.strip_suffix('"}]')
    said = kept.records.select("row", inner.str.split('"},{"role":"').alias("said")).explode("said")
    is_answer = said["said"].str.starts_with("assistant")
    if not kept.scores["row"].equals(said["row"].filter(is_answer)):
        raise ValueError(f"{kept.file}: the scores run out of step with the records")
    of_answers = labels.gather((is_answer.cum_sum().cast(pl.Int64) - 1).clip(0))
    written = said.with_columns(
        _text_of("system").alias("system"),
        pl.when(is_answer)
        .then(
            pl.format(
                '{{"value": "{}", "from": "Assistant", "label": "{}"}}', _text_of("assistant"), of_answers
            )
        )
        .otherwise(pl.format('{{"value": "{}", "from": "User", "label": null}}', _text_of("user")))
        .alias("turn"),
    )
    return (
        written.group_by("row", maintain_order=True)
        .agg(pl.col("turn").str.join(", "), pl.col("system").drop_nulls().first())
        .select(
            pl.format(
                f'{{{{"conversations": [{{}}], "system": "{{}}", "mask": "{steerlm.MASK}", '
                f'"type": "{steerlm.TYPE}"}}}}\n',
                "turn",
                pl.col("system").fill_null(json.dumps(steerlm.NEMO_SYSTEM)[1:-1]),
            ).alias("line")
        )["line"]
    )


def _text_of(role: str) -> pl.Expr:
    """The text of messages of that role, as JSON has it between quotes; null of others."""
    start = f'{role}","content":"'
    said = pl.col("said")
    return pl.when(said.str.starts_with(start)).then(said.str.strip_prefix(start))


STEERLM: Export[Item] = Export(
    name="steerlm",
    file="labeled.jsonl",
    description="SteerLM rows, every assistant turn labelled 0-4 (NeMo-Aligner)",
    needs=frozenset(ATTRIBUTES),
    refuses=refuses,
    row=labelled,
    plain=PlainRows(plain_lines, steerlm.gap),
)

#: What a run writes that stops after convert. It is nobody's choice, so it is not in ``EXPORTS``.
CONVERTED: Export[Item] = Export(
    name="converted",
    file="converted.jsonl",
    description="SteerLM rows with the labels that the records came with",
    refuses=refuses,
    row=as_it_came,
)


def _regression(item: Item) -> Raw:
    """The row of the item's last turn: the text through it, and its label's nine numbers."""
    labels: list[str | None] = [None] * len(item.messages)
    labels[-1] = _label(item.attributes, item.scores[-1])
    (row,) = steerlm.regression_rows(*_as_nemo_has_them(item, labels))
    return Raw(json.dumps(row, ensure_ascii=False).encode())


STEERLM_REGRESSION: Export[Item] = Export(
    name="steerlm-regression",
    file="nemo-aligner/regression.jsonl",
    description="a text and nine numbers a turn, for NeMo-Aligner's regression reward models",
    unit=Unit.TURN,
    needs=frozenset(ATTRIBUTES),
    refuses=refuses,
    row=_regression,
)
