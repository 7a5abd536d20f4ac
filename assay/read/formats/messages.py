"""``messages``: OpenAI's and Hugging Face's chat format.

``{"messages": [{"role", "content"}, …]}``. A role may be in any case; ``developer`` counts as system,
``function`` as tool. A list of text parts is joined with nothing in between. A part that is not text, or an
assistant's call of a tool, quarantines the record. A message's other fields (``name``, ``weight``) are not
carried along.

Policy: messages are kept as given, also with a system message in the middle, an assistant first, or the same
role twice. Empty or null content is quarantined.
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
