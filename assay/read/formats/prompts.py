"""What several formats read in front of an answer: a prompt with its context, a transcript."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import msgspec

from assay.core.schema import Message
from assay.read.formats.names import Names
from assay.read.formats.nemo_markers import NEMO_END, is_marked, marked_messages, split_prompt
from assay.read.formats.reading import (
    Draft,
    Row,
    Unreadable,
    WireMessage,
    chat_in,
    decoded,
    is_blank,
    kind_of,
    messages_of,
    wire_of,
)
from assay.read.formats.rendered import end_of, rendered_messages, without_end

#: Fields that may hold the prompt, the likeliest first.
PROMPT_FIELDS = (
    "prompt",
    "instruction",
    "question",
    "query",
    "messages",
    "conversations",
    "conversation",
    "trajectory",
    "context_messages",
    "context",
    "input",
)
#: Fields with the text that a question is about: Alpaca's and Dolly's.
CONTEXT_FIELDS = ("input", "context")

_DECODE_ROW = msgspec.json.Decoder(Row).decode
_DECODE_CONTEXT = msgspec.json.Decoder(str | list[str] | None).decode
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Prompt(NamedTuple):
    """The messages before an answer, and the fields that they are made of."""

    messages: list[Message]
    used: frozenset[str]
    nemo_prompt: str | None = None
    """The prompt's text, where the messages are made of it by NeMo-Aligner's markers."""
    end: str = ""
    """What ends an answer to it, where the prompt is a text with markers."""

    def with_answer(self, answer: list[Message]) -> Draft:
        """The record of the prompt and its answer, without the marker that ends it.

        It keeps the prompt's text where one message follows: NeMo-Aligner's row has no place for more.
        """
        if self.end and answer:
            answer = [*answer[:-1], replace(answer[-1], content=without_end(answer[-1].content, self.end))]
        nemo_prompt = self.nemo_prompt if len(answer) == 1 else None
        return Draft(self.messages + answer, self.used, is_answer=True, nemo_prompt=nemo_prompt)


def messages_in(row: Row, field: str, role: str, names: Names) -> list[Message]:
    """The messages in ``field``: a text by ``role``, one message, or a list of messages."""
    kind = kind_of(row, field)
    if kind == "[":
        return chat_in(row, field, names)
    value = decoded(row, field, wire_of)
    if value is None:
        raise Unreadable(f"empty_content: {field!r} is null")
    if isinstance(value, str):
        return [Message(role, value)]
    return messages_of([value] if isinstance(value, WireMessage) else [], names)


def prompt_of(row: Row, field: str, names: Names) -> Prompt:
    """The prompt in ``field`` with its context. An object with messages, OpenAI's, is carried along too."""
    if kind_of(row, field) == "{" and kind_of(inside := _DECODE_ROW(row[field]), "messages") == "[":
        return Prompt(messages_in(inside, "messages", "user", names), frozenset())
    asked = messages_in(row, field, "user", names)
    used = {field}
    if kind_of(row, field) != '"':
        return Prompt(asked, frozenset(used))
    text = asked[0].content
    end = NEMO_END if is_marked(text) else end_of(text)
    if end is not None or (field != "instruction" and is_transcript(text)):
        asked = transcript(text, names)
        if asked and asked[-1].role == "assistant" and is_blank(asked[-1].content):
            asked.pop()
        return Prompt(asked, frozenset(used), end=end or "")
    for name in CONTEXT_FIELDS:
        if name != field and name in row and not _holds_messages(row, name):
            context = _context(row, name)
            # Alpaca's two fields are always joined, even where one repeats the other.
            if field == "instruction" or not context or context not in text:
                used.add(name)
                text = f"{text}\n\n{context}" if context else text
    parts = split_prompt(text)
    if parts is None:
        return Prompt([Message("user", text)], frozenset(used))
    return Prompt(parts, frozenset(used), text)


def _holds_messages(row: Row, field: str) -> bool:
    """Whether a context is messages: what was said before, and so a history."""
    return kind_of(row, field) == "[" and bytes(row[field])[1:].lstrip().startswith(b"{")


def _context(row: Row, field: str) -> str:
    """The text in ``field``, or its texts joined by empty lines; empty where it is blank or null."""
    value = decoded(row, field, _DECODE_CONTEXT) or ""
    context = value if isinstance(value, str) else "\n\n".join(value)
    return "" if is_blank(context) else context


def prompt_field(row: Row) -> str | None:
    """The field that holds the prompt; None where none does."""
    return next((name for name in PROMPT_FIELDS if name in row), None)


def is_transcript(text: str) -> bool:
    """Whether the text begins as a transcript does."""
    return _TURN.match(text) is not None or is_marked(text) or end_of(text) is not None


def transcript(text: str, names: Names) -> list[Message]:
    """The messages of ``\\n\\nHuman: …\\n\\nAssistant: …``; one space after the colon is not content.

    The same words at the beginning of a paragraph inside a message count as a speaker too. A text that begins
    with a marker is read as ``nemo_markers`` or ``rendered`` does.
    """
    if is_marked(text):
        return marked_messages(text, names).messages
    if end_of(text) is not None:
        return rendered_messages(text, names)
    marks = list(_TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise Unreadable("not_a_transcript: a text without a prompt must begin with 'Human:' or 'Assistant:'")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        Message(_ROLES[mark[1]], text[mark.end() : end].removeprefix(" "))
        for mark, end in zip(marks, ends, strict=True)
    ]
