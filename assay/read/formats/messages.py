"""``messages``: OpenAI's and Hugging Face's chat format.

``{"messages": [{"role", "content"}, …]}``. A role may be in any case; ``developer`` counts as system,
``function`` as tool. A list of text parts is joined with nothing in between. A part that is not text, or a
call that cannot be read, quarantines the record. A message's other fields (``name``, ``weight``) stay with
it. Where the messages end without an answer, a field such as ``response`` or ``responses`` beside them holds
it; one record per answer.

Policy: messages are kept as given, also with a system message in the middle, an assistant first, or the same
role twice. Empty or null content is quarantined; a system message without content is none.
"""

from __future__ import annotations

from assay.core.schema import Message
from assay.read.formats.chats import BESIDE, completed
from assay.read.formats.names import Names
from assay.read.formats.reading import Alone, Draft, Format, Row, chat_in, kind_of, texts_in

_FIELD = "messages"


def read(row: Row, names: Names) -> list[Draft]:
    """One record, or one per answer beside the messages."""
    messages = chat_in(row, _FIELD, names)
    return completed(row, messages, _FIELD, names)


def _texts(row: Row, names: Names) -> list[Message] | None:
    return texts_in(row, _FIELD, names)


def fits(row: Row) -> bool:
    """Whether ``messages`` is a list."""
    return kind_of(row, _FIELD) == "["


MESSAGES = Format("messages", (frozenset({_FIELD}),), fits, read, beside=BESIDE, alone=Alone(_FIELD, _texts))
