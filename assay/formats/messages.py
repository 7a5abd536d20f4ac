"""``messages``: OpenAI's and Hugging Face's chat format.

``{"messages": [{"role", "content"}, …]}``, or under ``conversation``, as distilabel, WildChat and
LMSYS-Chat write it. Roles in any case; ``developer`` is a system message, ``function`` a tool's. A list of
text parts is joined without anything between; a part that is not text and an assistant's call of a tool
quarantine the record. A message's other fields (``name``, ``weight``) are not carried along.

Policy: a system message, also in the middle, an assistant first and the same role twice are kept as
given. Empty or null content is quarantined.
"""

from __future__ import annotations

from assay.formats.reading import Format, Reading, Row, kind_of, messages_of, rest_of, wire_messages

_FIELDS = ("messages", "conversation")


def read(row: Row) -> list[Reading]:
    """One reading."""
    there = [field for field in _FIELDS if field in row] or _FIELDS
    field = next((field for field in there if kind_of(row, field) == "["), there[0])
    return [Reading(messages_of(wire_messages(row, field)), None, rest_of(row, {field}))]


def fits(row: Row) -> bool:
    """Whether one of the fields is a list."""
    return any(kind_of(row, field) == "[" for field in _FIELDS)


MESSAGES = Format("messages", tuple(frozenset({field}) for field in _FIELDS), fits, read)
