"""SteerLM rows, every assistant turn labelled; NeMo-Aligner loads them.

``labeled.jsonl`` has labels made of the scores, ``converted.jsonl`` the labels that the records came with.
``nemo-aligner/regression.jsonl`` is what NeMo-Aligner's process_to_regression_format.py makes of
``labeled.jsonl``: a row a turn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Raw

from assay.core import steerlm
from assay.core.labels import label_from_scores
from assay.core.schema import ATTRIBUTES, Message
from assay.export.contract import Export, Unit
from assay.export.kept import Item
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


STEERLM: Export[Item] = Export(
    name="steerlm",
    file="labeled.jsonl",
    description="SteerLM rows, every assistant turn labelled 0-4 (NeMo-Aligner)",
    needs=frozenset(ATTRIBUTES),
    refuses=refuses,
    row=labelled,
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
