"""``conversation``: messages in a field of that name, as distilabel, WildChat and LMSYS-Chat write them.

``{"conversation": [{"role", "content"}, …]}``, or ms-swift's ``[{"human", "assistant"}, …]``, or Capybara's
``[{"input", "output"}, …]``; the rest is as in ``messages``. A row that also has ``messages``, or an answer
in a field of its own, is not of this format: those fields count, as for distilabel's RewardModelScore.
"""

from __future__ import annotations

import msgspec

from assay.read.formats.chats import BESIDE, completed
from assay.read.formats.instruction import INSTRUCTION
from assay.read.formats.messages import MESSAGES
from assay.read.formats.names import SPEAKERS, Names
from assay.read.formats.reading import Draft, Format, Row, chat_in, exchange_in, kind_of
from assay.read.formats.responses import RESPONSES

_FIELD = "conversation"
_USED = frozenset({_FIELD})
_SPEAKER_FIELDS = frozenset({"role", "from"})

_DECODE_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_DECODE_ROW = msgspec.json.Decoder(Row).decode


def read(row: Row, names: Names) -> list[Draft]:
    """One record, or one per answer beside the conversation."""
    return completed(row, chat_in(row, _FIELD, names), _FIELD, names)


def fits(row: Row) -> bool:
    """Whether ``conversation`` is a list of messages, with no answer beside it."""
    if kind_of(row, _FIELD) != "[" or MESSAGES.fits(row):
        return False
    if any(
        keys <= row.keys()
        for format in (RESPONSES, INSTRUCTION)
        for keys in format.keys
        if _FIELD not in keys
    ):
        return False
    try:
        first = next(iter(_DECODE_ELEMENTS(row[_FIELD])), None)
        message = {} if first is None else _DECODE_ROW(first)
    except msgspec.DecodeError:
        return False
    return bool(exchange_in(message)) or any(
        name.lower() in _SPEAKER_FIELDS or name.lower() in SPEAKERS for name in message
    )


CONVERSATION = Format("conversation", (_USED,), fits, read, beside=BESIDE)
