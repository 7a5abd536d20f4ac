"""SteerLM rows, every assistant turn labelled; NeMo-Aligner loads them.

``labeled.jsonl`` has labels made of the scores, ``converted.jsonl`` the labels that the records came with.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from assay.core import steerlm
from assay.core.labels import label_from_scores
from assay.core.schema import ATTRIBUTES, Message
from assay.export.contract import Export
from assay.export.kept import Item


def refuses(item: Item) -> str | None:
    """Why no SteerLM row can express the messages; None where one can.

    A row has no place for tools, nor for a call beside an answer's text.
    """
    problem = steerlm.gap(item.roles)
    if problem is not None:
        return problem
    for number, message in enumerate(item.messages, 1):
        if type(message) is not Message and message.fields.tool_calls is not None:
            return f"tool_call: message {number} calls a tool"
    return None if item.tools is None else "tools: the record has tools"


def labelled(item: Item) -> Raw:
    """The row with labels made of the scores, which ``assay.core.labels`` alone rounds."""
    labels = iter([label_from_scores(item.attributes, values) for values in item.scores])
    return _row(item, [next(labels) if message.role == "assistant" else None for message in item.messages])


def as_it_came(item: Item) -> Raw:
    """The row with the labels that the record came with."""
    return _row(item, item.labels)


def _row(item: Item, labels: Sequence[str | None] | None) -> Raw:
    messages: Sequence[Message] = item.messages
    if item.nemo_prompt is not None:
        # HelpSteer2's prompts of several turns are one turn in NeMo-Aligner's rows.
        first = int(item.roles.startswith("s"))
        messages = (*messages[:first], Message("user", item.nemo_prompt), messages[-1])
        labels = None if labels is None else [*labels[:first], None, labels[-1]]
    return Raw(steerlm.to_json(messages, labels))


STEERLM = Export(
    name="steerlm",
    file="labeled.jsonl",
    description="SteerLM rows, every assistant turn labelled 0-4 (NeMo-Aligner)",
    needs=frozenset(ATTRIBUTES),
    refuses=refuses,
    row=labelled,
    holds_fields=False,
)

#: What a run writes that stops after convert. It is nobody's choice, so it is not in ``EXPORTS``.
CONVERTED = Export(
    name="converted",
    file="converted.jsonl",
    description="SteerLM rows with the labels that the records came with",
    refuses=refuses,
    row=as_it_came,
    holds_fields=False,
)
