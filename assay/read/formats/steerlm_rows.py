"""``steerlm``: NeMo-Aligner's rows. Unlike ShareGPT's they have ``mask``, ``type``, or a turn's ``label``.

``{"conversations": [{"value", "from", "label"}], "system", "mask", "type"}``. The speaker that ``mask``
names is the user. ``system`` becomes a system message unless it is blank or NeMo-Aligner's own fixed
sentence, which stands in every row. Labels of assistant turns are kept; a null label counts as none. A
``type`` other than ``VALUE_TO_TEXT`` is carried along.

Policy: turns are kept as given, also with an assistant first or the same role twice. A system turn in the
middle is kept too, though Assay cannot write it as a SteerLM row again. Empty or null content is quarantined.
"""

from __future__ import annotations

import msgspec

from assay.core import steerlm
from assay.core.schema import Message
from assay.read.formats.reading import (
    Format,
    Reading,
    Row,
    WireMessage,
    kind_of,
    messages_of,
    rest_of,
    text_of,
    wire_messages,
)

_USED = frozenset({"conversations", "system", "mask", "type"})
_KEYS = frozenset({"conversations"})


def read(row: Row) -> list[Reading]:
    """One reading."""
    wires = wire_messages(row, "conversations")
    mask = text_of(row, "mask")
    for wire in wires:
        if mask is not None and wire.speaker == mask:
            wire.speaker = "user"
    messages = messages_of(wires)
    labels = [
        wire.label if message.role == "assistant" and isinstance(wire.label, str) else None
        for wire, message in zip(wires, messages, strict=True)
    ]
    system = text_of(row, "system")
    if system and not system.isspace() and system != steerlm.NEMO_SYSTEM:
        messages.insert(0, Message("system", system))
        labels.insert(0, None)
    used = _USED if text_of(row, "type") in (steerlm.TYPE, None) else _USED - {"type"}
    has_label = any(label is not None for label in labels)
    return [Reading(messages, labels if has_label else None, rest_of(row, used))]


_DECODE_MESSAGES = msgspec.json.Decoder(list[WireMessage]).decode


def fits(row: Row) -> bool:
    """Whether ``conversations`` is a list with a ``mask`` or ``type`` beside it, or labels inside."""
    if kind_of(row, "conversations") != "[":
        return False
    if "mask" in row or ("type" in row and b"VALUE_TO_TEXT" in bytes(row["type"])):
        return True
    try:
        wires = _DECODE_MESSAGES(row["conversations"])
    except (msgspec.DecodeError, RecursionError):
        return False
    return any(wire.label is not msgspec.UNSET for wire in wires)


STEERLM = Format("steerlm", (_KEYS,), fits, read)
