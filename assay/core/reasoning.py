"""An assistant's reasoning: where a message holds it, and messages without it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from assay.core.schema import (
    MAY_BEGIN_THOUGHT,
    REASONING_FIELDS,
    THOUGHT_MARKS,
    Conversation,
    Message,
    is_turn,
    message_with,
    thought_end,
)

_OPENINGS = tuple(opening for opening, _ in THOUGHT_MARKS)


class NothingElse(Exception):
    """A turn holds nothing but reasoning. Its text is the reason why it cannot be rated without it."""


def turns_with_reasoning(messages: Iterable[Message]) -> int:
    """How many turns hold reasoning: in a field, or as ``<think>…</think>`` at the beginning of the text."""
    return sum(is_turn(message) and holds_reasoning(message) for message in messages)


def holds_reasoning(message: Message) -> bool:
    """Whether an assistant message holds reasoning.

    >>> holds_reasoning(Message("assistant", "<think>2 + 2</think> 4"))
    True
    """
    if message.role != "assistant":
        return False
    if _opens(message.content):
        return True
    return type(message) is not Message and any(
        (getattr(message.fields, name) or "").strip() for name in REASONING_FIELDS
    )


def _opens(content: str) -> bool:
    # Most answers begin with another character.
    return content[:1] in MAY_BEGIN_THOUGHT and content.lstrip().startswith(_OPENINGS)


def without_reasoning(messages: Iterable[Message]) -> Conversation:
    """The messages without the assistant's reasoning; those that hold none are the same objects.

    ``NothingElse`` for a turn of which nothing is left, or whose reasoning has no end.

    >>> without_reasoning([Message("assistant", "<think>2 + 2</think> 4")])
    (Message(role='assistant', content='4'),)
    """
    return tuple(_bare(message, number) for number, message in enumerate(messages, 1))


def _bare(message: Message, number: int) -> Message:
    if message.role != "assistant":
        return message
    content, fields = message.content, message.fields
    if _opens(content):
        content = content[thought_end(content) :]
        if _opens(content):
            opening = next(one for one in _OPENINGS if content.lstrip().startswith(one))
            raise NothingElse(
                f"unclosed_reasoning: message {number} (assistant) begins with {opening} and never ends it, "
                "so it has no answer to rate"
            )
    fields = replace(fields, **dict.fromkeys(REASONING_FIELDS)) if type(message) is not Message else fields
    if content == message.content and fields == message.fields:
        return message
    if not content.strip() and is_turn(message):
        raise NothingElse(f"empty_content: message {number} (assistant) holds nothing but reasoning")
    return message_with(message.role, content, fields)
