"""A conversation with nothing in it: what a template writes for it, the template wrote by itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from assay.core.calls import Json, compact, shown_calls
from assay.core.schema import REASONING_FIELDS, Conversation, FullMessage, Message, MessageFields

#: What stands for every text.
PLACEHOLDER = "x"

#: Names in calls, in tools and in JSON schemas that templates look for. Other names are texts of the data.
_KNOWN_NAMES = frozenset(
    (
        *("type", "id", "function", "name", "arguments", "description", "parameters", "properties"),
        *("required", "items", "enum", "default", "return", "format", "anyOf", "oneOf", "allOf", "not"),
        *("additionalProperties", "strict", "nullable", "title", "const", "examples", "$ref", "$defs"),
        *("minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern"),
    )
)
#: Of these, names of objects whose own names are from the data; in arguments, all names below are.
_NAMED_BY_DATA = frozenset(("arguments", "properties", "$defs"))
#: Templates branch by these values, which are words of JSON Schema.
_TYPES = frozenset(("function", "object", "array", "string", "integer", "number", "boolean", "null"))


class Skeleton(NamedTuple):
    """Messages of the same roles, with the same fields and the same calls and tools, without their texts."""

    messages: Conversation
    tools: str | None = None


def skeleton_of(messages: Sequence[Message], tools: str | None = None) -> Skeleton:
    """The skeleton of a conversation that has tools or fields.

    Texts that differ stay different: Mistral's template, for one, asks which message is the last of the
    user's by comparing them.
    """
    places: dict[Message, int] = {}
    bare = tuple(_bare(one, PLACEHOLDER * (1 + places.setdefault(one, len(places)))) for one in messages)
    return Skeleton(bare, None if tools is None else compact(_emptied(json.loads(tools))))


def plain_skeleton(roles: Iterable[str]) -> Skeleton:
    """The skeleton of a conversation of these roles without tools or fields."""
    return Skeleton(tuple([Message(role, PLACEHOLDER) for role in roles]))


def texts_of(message: Message) -> list[str]:
    """All texts of a message that a template may show."""
    fields = message.fields
    texts = [message.content, fields.tool_calls, fields.tool_call_id, fields.name]
    texts += [getattr(fields, name) for name in REASONING_FIELDS]
    return [text for text in texts if text]


def _bare(message: Message, text: str) -> Message:
    if type(message) is Message:
        return Message(message.role, text)
    fields = message.fields
    emptied = MessageFields(
        reasoning_content=_placeholder(fields.reasoning_content),
        thinking=_placeholder(fields.thinking),
        reasoning=_placeholder(fields.reasoning),
        tool_calls=(
            None
            if fields.tool_calls is None
            else compact(_emptied(json.loads(shown_calls(fields.tool_calls))))
        ),
        # Mistral's template wants ids of nine letters and digits.
        tool_call_id=None if fields.tool_call_id is None else PLACEHOLDER * len(fields.tool_call_id),
        name=_placeholder(fields.name),
        content_is=fields.content_is,
    )
    return FullMessage(message.role, text if message.content else "", emptied)


def _placeholder(text: str | None) -> str | None:
    return None if text is None else PLACEHOLDER


def _emptied(value: Json, *, below: str = "") -> Json:
    """JSON of the same shape without its texts. ``below``: the name that the value has."""
    if isinstance(value, str):
        if below == "id":
            return PLACEHOLDER * len(value)
        return value if below == "type" and value in _TYPES else PLACEHOLDER
    if isinstance(value, list):
        return [_emptied(one, below=below) for one in value]
    if not isinstance(value, dict):
        return value
    if below not in _NAMED_BY_DATA:
        places = enumerate(value.items())
        return {
            name if name in _KNOWN_NAMES else f"{PLACEHOLDER}{place}": _emptied(one, below=name)
            for place, (name, one) in places
        }
    inside = "arguments" if below == "arguments" else ""
    return {f"{PLACEHOLDER}{place}": _emptied(one, below=inside) for place, one in enumerate(value.values())}
