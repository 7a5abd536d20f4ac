"""``steerlm``: NeMo-Aligner's rows. Unlike ShareGPT's they have ``mask``, ``type``, or a turn's ``label``.

``{"conversations": [{"value", "from", "label"}], "system", "mask", "type"}``. The speaker that ``mask``
names is the user. ``system`` becomes a system message unless it is blank or NeMo-Aligner's own fixed
sentence, which stands in every row. Labels of assistant turns are kept; a null label counts as none. A
``type`` other than ``VALUE_TO_TEXT`` is carried along.

Policy: turns are kept as given, also with an assistant first or the same role twice. A system turn in the
middle is kept too, though Assay cannot write it as a SteerLM row again. Empty or null content is quarantined.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from assay.core import steerlm
from assay.core.schema import Message, message_with
from assay.read.formats.chats import completed
from assay.read.formats.names import KNOWN_NAMES, Names
from assay.read.formats.nemo_markers import split_prompt
from assay.read.formats.reading import (
    Draft,
    Format,
    Row,
    Unreadable,
    kind_of,
    messages_of,
    text_of,
    texts_in,
    wire_messages,
)

_CONVERSATIONS = "conversations"
_KEYS = frozenset({_CONVERSATIONS})
_MASK = frozenset({"mask", "type"})


def read(row: Row, names: Names) -> list[Draft]:
    """One record, or one per answer beside the conversation; ShareGPT's rows are read here too."""
    wires = wire_messages(row, _CONVERSATIONS, names)
    if _MASK.isdisjoint(row) and not any(wire.label is not msgspec.UNSET for wire in wires):
        chats = completed(row, messages_of(wires, names), _CONVERSATIONS, names)
        return [_split(one) for one in chats]
    used = {_CONVERSATIONS}
    mask = text_of(row, "mask")
    masked = [wire for wire in wires if mask is not None and wire.speaker == mask]
    for wire in masked:
        wire.speaker = "user"
    messages = messages_of(wires, names, labels_apart=True)
    labels = [
        wire.label if message.role == "assistant" and isinstance(wire.label, str) else None
        for wire, message in zip(wires, messages, strict=True)
    ]
    if "type" in row and text_of(row, "type") in (steerlm.TYPE, None):
        used.add("type")
    # A mask that names the user is not carried along: the user's role says the same.
    if masked:
        used.add("mask")
    if kind_of(row, "system") == '"' and text_of(row, "system") == steerlm.NEMO_SYSTEM:
        used.add("system")
    has_label = any(label is not None for label in labels)
    return [_split(Draft(messages, used, labels if has_label else None))]


def plain_texts(row: Row, names: Names) -> list[Message] | None:
    """The messages of a conversation in which nothing but texts is said; None where there is more to read."""
    texts = texts_in(row, _CONVERSATIONS, names, sharegpt=True)
    return None if texts is not None and _may_split(texts) else texts


def _may_split(messages: Sequence[Message]) -> bool:
    return len(messages) == 2 and messages[0].role == "user" and "<extra_id_1>" in messages[0].content


def _split(draft: Draft) -> Draft:
    """The record with HelpSteer2's prompt, one turn in NeMo-Aligner's rows, as the turns in it."""
    messages = draft.messages
    if not _may_split(messages):
        return draft
    parts = split_prompt(messages[0].content)
    if parts is None:
        return draft
    # What the message holds beside its text belongs to the question that is answered.
    parts[-1] = message_with("user", parts[-1].content, messages[0].fields)
    labels = None if draft.labels is None else [*[None] * len(parts), draft.labels[-1]]
    return draft._replace(messages=[*parts, messages[1]], labels=labels, nemo_prompt=messages[0].content)


def fits(row: Row) -> bool:
    """Whether ``conversations`` is a list with a ``mask`` or ``type`` beside it, or labels inside."""
    if kind_of(row, _CONVERSATIONS) != "[":
        return False
    if "mask" in row or ("type" in row and b"VALUE_TO_TEXT" in bytes(row["type"])):
        return True
    try:
        wires = wire_messages(row, _CONVERSATIONS, KNOWN_NAMES)
    except Unreadable:
        return False
    return any(wire.label is not msgspec.UNSET for wire in wires)


STEERLM = Format("steerlm", (_KEYS,), fits, read, beside=_MASK)
