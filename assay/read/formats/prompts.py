"""What several formats read in front of an answer: prompt, system message, history, transcript."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from assay.core.schema import Message
from assay.read.formats.reading import Row, Unreadable, WireMessage, decoded, kind_of, messages_of, text_of

#: Fields that may hold the prompt, the likeliest first.
PROMPT_FIELDS = (
    "prompt",
    "instruction",
    "question",
    "query",
    "messages",
    "conversations",
    "context",
    "input",
)
#: Fields that may hold the system message.
SYSTEM_FIELDS = ("system", "system_prompt")
#: Fields with the text that a question is about: Alpaca's and Dolly's.
CONTEXT_FIELDS = ("input", "context")

_DECODE_CONTENT = msgspec.json.Decoder(str | WireMessage | list[WireMessage] | None).decode
_DECODE_CONTEXT = msgspec.json.Decoder(str | list[str] | None).decode
_DECODE_HISTORY = msgspec.json.Decoder(list[tuple[str, str]] | None).decode
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Prompt(NamedTuple):
    """The messages before an answer, and the fields that they are made of."""

    messages: list[Message]
    used: frozenset[str]


def messages_in(row: Row, field: str, role: str) -> list[Message]:
    """The messages in ``field``: a text by ``role``, one message, or a list of messages."""
    value = decoded(row, field, _DECODE_CONTENT)
    if value is None:
        raise Unreadable(f"empty_content: {field!r} is null")
    if isinstance(value, str):
        return [Message(role, value)]
    return messages_of(value if isinstance(value, list) else [value])


def prompt_of(row: Row, field: str) -> Prompt:
    """The prompt in ``field`` with its context, after the row's system message and history."""
    used = {field}
    messages: list[Message] = []
    for name in SYSTEM_FIELDS:
        if name in row:
            used.add(name)
            system = text_of(row, name)
            if system and not system.isspace():
                messages.append(Message("system", system))
    if "history" in row and field == "instruction":
        used.add("history")
        for question, answer in decoded(row, "history", _DECODE_HISTORY) or ():
            messages += (Message("user", question), Message("assistant", answer))
    asked = messages_in(row, field, "user")
    if kind_of(row, field) == '"' and field != "instruction" and is_transcript(asked[0].content):
        asked = transcript(asked[0].content)
        if asked[-1] == Message("assistant", ""):
            asked.pop()
    elif kind_of(row, field) == '"':
        text = asked[0].content
        for name in CONTEXT_FIELDS:
            if name != field and name in row:
                context = _context(row, name)
                # Alpaca's two fields are always joined, even where one repeats the other.
                if field == "instruction" or not context or context not in text:
                    used.add(name)
                    text = f"{text}\n\n{context}" if context else text
        asked = [Message("user", text)]
    return Prompt(messages + asked, frozenset(used))


def _context(row: Row, field: str) -> str:
    """The text in ``field``, or its texts joined by empty lines; empty where it is blank or null."""
    value = decoded(row, field, _DECODE_CONTEXT) or ""
    context = value if isinstance(value, str) else "\n\n".join(value)
    return "" if context.isspace() else context


def prompt_field(row: Row) -> str | None:
    """The field that holds the prompt; None where none does."""
    return next((name for name in PROMPT_FIELDS if name in row), None)


def is_transcript(text: str) -> bool:
    """Whether the text begins as a transcript does."""
    return _TURN.match(text) is not None


def transcript(text: str) -> list[Message]:
    """The messages of ``\\n\\nHuman: …\\n\\nAssistant: …``; one space after the colon is not content.

    The same words at the beginning of a paragraph inside a message count as a speaker too.
    """
    marks = list(_TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise Unreadable("not_a_transcript: a text without a prompt must begin with 'Human:' or 'Assistant:'")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        Message(_ROLES[mark[1]], text[mark.end() : end].removeprefix(" "))
        for mark, end in zip(marks, ends, strict=True)
    ]
