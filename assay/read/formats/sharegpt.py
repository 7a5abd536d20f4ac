"""``sharegpt``: ``{"conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, …]}``.

Messages may as well have ``role`` and ``content``. A speaker goes by any of the names in
``reading.SPEAKERS``, in any case; another one quarantines the record, and so does a call of a function.
A ``system`` field beside the conversation that is not blank becomes the system message in front of it.

Policy: a system message, also in the middle, an assistant first (common here: long conversations were
split) and the same role twice are kept as given. Empty or null content is quarantined.
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
