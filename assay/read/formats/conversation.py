"""``conversation``: messages in a field of that name, as distilabel, WildChat and LMSYS-Chat write them.

``{"conversation": [{"role", "content"}, …]}``; the rest is as in ``messages``. A row that also has
``messages``, or an answer in a field of its own, is not of this format: those fields count, as they do for
distilabel's RewardModelScore.
"""

from __future__ import annotations

import msgspec

from assay.read.formats.instruction import INSTRUCTION
from assay.read.formats.messages import MESSAGES
from assay.read.formats.reading import Format, Reading, Row, kind_of, messages_of, rest_of, wire_messages
from assay.read.formats.responses import RESPONSES

_FIELD = "conversation"
_USED = frozenset({_FIELD})

_DECODE_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_DECODE_ROW = msgspec.json.Decoder(Row).decode


def read(row: Row) -> list[Reading]:
    """One reading."""
    return [Reading(messages_of(wire_messages(row, _FIELD)), None, rest_of(row, _USED))]


def fits(row: Row) -> bool:
    """Whether ``conversation`` is a list of messages, with no answer beside it."""
    if kind_of(row, _FIELD) != "[" or MESSAGES.fits(row):
        return False
    if any(keys <= row.keys() for format in (RESPONSES, INSTRUCTION) for keys in format.keys):
        return False
    try:
        first = next(iter(_DECODE_ELEMENTS(row[_FIELD])), None)
        return first is not None and not _DECODE_ROW(first).keys().isdisjoint({"role", "from"})
    except msgspec.DecodeError:
        return False


CONVERSATION = Format("conversation", (_USED,), fits, read)
