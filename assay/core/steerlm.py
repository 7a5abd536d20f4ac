"""SteerLM rows as NeMo-Aligner reads and writes them.

Checked against NVIDIA/NeMo-Aligner, examples/nlp/data/steerlm (common.py, preprocess_openassistant_data.py,
preprocess_helpsteer2_data.py, attribute_annotate.py, process_to_regression_format.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from assay.core.labels import parse_label
from assay.core.schema import ATTRIBUTES, CALL, Message, roles_of

#: The system sentence of every NeMo-Aligner script (common.py, SYSTEM_PROMPT).
NEMO_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
MASK = "User"
TYPE = "VALUE_TO_TEXT"

#: A regression row's value for an attribute that the label lacks (process_to_regression_format.py).
NO_VALUE = -100.0

#: Matches a system message that is not the first message, a tool's message, or a call of a tool.
_INEXPRESSIBLE = re.compile("(?!^)s|t|c")
_SPEAKERS = {"user": "User", "assistant": "Assistant"}


def gap(roles: str) -> str | None:
    """Why a SteerLM row cannot express messages of these ``roles``; None where it can.

    A row holds one system message, in front, and messages of a user and an assistant.

    >>> gap("suaua")
    >>> gap("uas")
    'late_system_message: message 3 is a system message'
    """
    found = _INEXPRESSIBLE.search(roles)
    if found is None:
        return None
    number = found.end()
    if found[0] == "t":
        return f"tool_message: message {number} is a tool's"
    if found[0] == CALL:
        return f"tool_call: message {number} is a call of a tool"
    if roles[0] == "s":
        return f"several_system_messages: message {number} is another one"
    return f"late_system_message: message {number} is a system message"


def to_row(messages: Sequence[Message], labels: Sequence[str | None] | None) -> dict[str, Any]:
    """The SteerLM row of messages that have no ``gap``.

    ``labels`` has one entry per message. In the row a user's label is null. An assistant's turn has its
    label, even an empty one; it has no ``label`` key where the entry is None.
    """
    problem = gap(roles_of(messages))
    if problem is not None:
        raise ValueError(f"no SteerLM row can express these messages: {problem}")
    system = NEMO_SYSTEM
    turns: list[dict[str, str | None]] = []
    for message, label in zip(messages, labels or (None,) * len(messages), strict=True):
        if message.role == "system":
            system = message.content
            continue
        turn: dict[str, str | None] = {"value": message.content, "from": _SPEAKERS[message.role]}
        if message.role == "user":
            turn["label"] = None
        elif label is not None:
            turn["label"] = label
        turns.append(turn)
    return {"conversations": turns, "system": system, "mask": MASK, "type": TYPE}


def to_json(messages: Sequence[Message], labels: Sequence[str | None] | None) -> bytes:
    """The SteerLM row as one line of UTF-8 JSON, with the same bytes as NeMo-Aligner's."""
    return json.dumps(to_row(messages, labels), ensure_ascii=False).encode()


def nemo_text(messages: Sequence[Message]) -> str:
    """The messages in NeMo-Aligner's template, through ``<extra_id_2>``, which its labels follow.

    The system sentence is always NeMo's, as in attribute_annotate.py. ``ValueError`` for messages that have
    a ``gap``.

    >>> nemo_text([Message("user", "Hi"), Message("assistant", "Hello")]).splitlines()[2:]
    ['<extra_id_1>User', 'Hi', '<extra_id_1>Assistant', 'Hello', '<extra_id_2>']
    """
    problem = gap(roles_of(messages))
    if problem is not None:
        raise ValueError(f"no SteerLM row can express these messages: {problem}")
    turns = (
        f"<extra_id_1>{_SPEAKERS[message.role]}\n{message.content}\n"
        for message in messages
        if message.role != "system"
    )
    return f"<extra_id_0>System\n{NEMO_SYSTEM}\n{''.join(turns)}<extra_id_2>"


def regression_rows(
    messages: Sequence[Message], labels: Sequence[str | None] | None
) -> Iterator[dict[str, Any]]:
    """Yield ``{"text", "label"}`` for each turn that has a label: NeMo-Aligner's regression format.

    The text runs from the first message through the turn, as ``nemo_text`` writes it.
    """
    problem = gap(roles_of(messages))
    if problem is not None:
        raise ValueError(f"no SteerLM row can express these messages: {problem}")
    for number, (message, label) in enumerate(
        zip(messages, labels or (None,) * len(messages), strict=True), start=1
    ):
        if label and message.role == "assistant":
            values = parse_label(label)
            yield {
                "text": nemo_text(messages[:number]),
                "label": [float(values.get(name, NO_VALUE)) for name in ATTRIBUTES],
            }
