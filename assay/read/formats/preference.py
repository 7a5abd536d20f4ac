"""``preference``: ``chosen`` and ``rejected`` answers, one record each.

A side is one of these:

- a list of messages, which begins with the prompt, or is only the answer to a ``prompt``, ``messages`` or
  ``conversations`` field;
- one message;
- an answer's text beside a prompt;
- an HH transcript (``\\n\\nHuman: …\\n\\nAssistant: …``): a text that begins and ends as one;
- a list of texts: several answers, as in RM-Bench.

The chosen answers come first. ``rest`` holds ``"assay_side": "chosen"`` or ``"rejected"``. Where a side holds
the prompt itself, a ``prompt`` field is carried along. The system message is as in ``instruction``.

Policy: messages are kept as given, also with a system message in the middle, an assistant first, or the same
role twice. Empty or null content quarantines only the record of that side.
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
    """One reading per answer, the chosen ones first."""
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
    """Yield the conversation of every answer of a side, and the fields that it is made of."""
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
            # An answer may begin with "Human:" too. A transcript also ends with an answer.
            if prompt is not None and (not messages or messages[-1].role != "assistant"):
                messages = [Message("assistant", text)]
            yield _after(prompt, messages)
        return
    yield _after(prompt, messages_of(entry for entry in entries if not isinstance(entry, str)))


def _after(prompt: Prompt | None, side: list[Message]) -> tuple[list[Message], frozenset[str]]:
    """A side's conversation, and the fields used. A prompt goes before an answer, not before a whole side."""
    if prompt is not None and (not side or side[0].role == "assistant"):
        return prompt.messages + side, _KEYS | prompt.used
    return side, _KEYS


def fits(row: Row) -> bool:
    """Always True: the names of the fields are enough."""
    return True


PREFERENCE = Format("preference", (_KEYS,), fits, read)
