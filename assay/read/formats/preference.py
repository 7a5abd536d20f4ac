"""``preference``: ``chosen`` and ``rejected`` answers, a record each.

A side is a list of messages (with the prompt in front, or only the answer to a ``prompt``, ``messages``
or ``conversations`` field), one message, an answer's text beside a prompt, or an HH transcript
(``\\n\\nHuman: …\\n\\nAssistant: …``), which every text is that begins and ends as one. A list of texts
is several answers, as in RM-Bench. The chosen ones come first. ``rest`` says ``"assay_side": "chosen"`` or
``"rejected"``. Of sides that hold the prompt, a ``prompt`` field is carried along. The system message is as
in ``instruction``.

Policy: messages are kept as given: system in the middle, assistant first, the same role twice. Empty
or null content quarantines the record of that side alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Raw

from assay.core.schema import Message
from assay.read.formats.prompts import Prompt, is_transcript, prompt_field, prompt_of, transcript
from assay.read.formats.reading import (
    Format,
    Reading,
    Row,
    Unreadable,
    WireMessage,
    decoded,
    messages_of,
    rest_of,
)

_SIDES = ("chosen", "rejected")
_KEYS = frozenset(_SIDES)
_DECODE_SIDE = msgspec.json.Decoder(str | WireMessage | list[str | WireMessage] | None).decode


def read(row: Row) -> list[Reading]:
    """A reading an answer, the chosen ones first."""
    field = prompt_field(row)
    prompt = prompt_of(row, field) if field is not None else None
    readings: list[Reading] = []
    for side in _SIDES:
        marked = Raw(b'"%s"' % side.encode())
        try:
            for messages, used in _answers(row, side, prompt):
                readings.append(Reading(messages, None, rest_of(row, used, assay_side=marked)))
        except Unreadable as error:
            readings.append(Reading([], problem=str(error)))
    return readings


def _answers(row: Row, side: str, prompt: Prompt | None) -> Iterator[tuple[list[Message], frozenset[str]]]:
    """Yield the conversation of every answer of a side, and the fields that it was made of."""
    value = decoded(row, side, _DECODE_SIDE)
    if value is None:
        raise Unreadable(f"empty_content: {side!r} is null")
    entries = value if isinstance(value, list) else [value]
    texts = [entry for entry in entries if isinstance(entry, str)]
    if texts:
        if len(texts) < len(entries):
            raise Unreadable(f"wrong_type: in {side!r}: texts and messages in one list")
        for text in texts:
            messages = transcript(text) if prompt is None or is_transcript(text) else []
            # An answer may begin with such a word too, but a transcript to be rated ends with an answer.
            if prompt is not None and (not messages or messages[-1].role != "assistant"):
                messages = [Message("assistant", text)]
            yield _after(prompt, messages)
        return
    yield _after(prompt, messages_of(entry for entry in entries if not isinstance(entry, str)))


def _after(prompt: Prompt | None, side: list[Message]) -> tuple[list[Message], frozenset[str]]:
    """A side's conversation: the prompt goes before an answer, and is carried along beside the whole."""
    if prompt is not None and (not side or side[0].role == "assistant"):
        return prompt.messages + side, _KEYS | prompt.used
    return side, _KEYS


def fits(row: Row) -> bool:
    """Always: the fields' names are enough."""
    return True


PREFERENCE = Format("preference", (_KEYS,), fits, read)
