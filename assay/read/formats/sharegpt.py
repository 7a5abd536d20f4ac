"""``sharegpt``: ``{"conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, …]}``.

A message may have ``role`` and ``content`` instead. A speaker has one of the names in ``reading.SPEAKERS``,
in any case. Another name, or a call of a function, quarantines the record. A ``system`` field beside the
conversation, if not blank, becomes the system message in front of it.

Policy: messages are kept as given, also with a system message in the middle, an assistant first (common here:
long conversations were split), or the same role twice. Empty or null content is quarantined.
"""

from __future__ import annotations

from assay.core.schema import Message
from assay.read.formats.reading import (
    Format,
    Reading,
    Row,
    kind_of,
    messages_of,
    rest_of,
    text_of,
    wire_messages,
)

_USED = frozenset({"conversations", "system"})


def read(row: Row) -> list[Reading]:
    """One reading."""
    messages = messages_of(wire_messages(row, "conversations"))
    system = text_of(row, "system") if "system" in row else None
    if system and not system.isspace():
        messages.insert(0, Message("system", system))
    return [Reading(messages, None, rest_of(row, _USED))]


def fits(row: Row) -> bool:
    """Whether ``conversations`` is a list."""
    return kind_of(row, "conversations") == "["


SHAREGPT = Format("sharegpt", (frozenset({"conversations"}),), fits, read)
