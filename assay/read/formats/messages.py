"""``messages``: OpenAI's and Hugging Face's chat format.

``{"messages": [{"role", "content"}, …]}``. Roles in any case; ``developer`` is a system message,
``function`` a tool's. A list of text parts is joined without anything between; a part that is not text
and an assistant's call of a tool quarantine the record. A message's other fields (``name``, ``weight``)
are not carried along.

Policy: a system message, also in the middle, an assistant first and the same role twice are kept as
given. Empty or null content is quarantined.
"""

from __future__ import annotations

from assay.read.formats.reading import Format, Reading, Row, kind_of, messages_of, rest_of, wire_messages

_USED = frozenset({"messages"})


def read(row: Row) -> list[Reading]:
    """One reading."""
    return [Reading(messages_of(wire_messages(row, "messages")), None, rest_of(row, _USED))]


def fits(row: Row) -> bool:
    """Whether ``messages`` is a list."""
    return kind_of(row, "messages") == "["


MESSAGES = Format("messages", (_USED,), fits, read)
