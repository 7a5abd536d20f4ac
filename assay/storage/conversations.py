"""The messages of a record as JSON text, and back: whatever a message holds comes out as it went in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Raw

from assay.core.schema import Conversation, Message, MessageFields, message_with

_ENCODE = msgspec.json.Encoder().encode


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What nearly all messages are."""

    role: str
    content: str


_DECODE_PLAIN = msgspec.json.Decoder(list[_Plain]).decode
_DECODE_ENTRIES = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_DECODE_OBJECT = msgspec.json.Decoder(dict[str, Raw]).decode
_DECODE_TEXT = msgspec.json.Decoder(str).decode

#: Fields that are texts. Another kind of value under such a name is carried along.
_TEXTS = ("reasoning_content", "thinking", "reasoning", "tool_call_id", "name")
_NULL = b"null"
_PLAIN = frozenset({Message})


def conversation_json(messages: Sequence[Message]) -> bytes:
    """A JSON array of ``{"role", "content", …}``. The fields that a message holds follow these two."""
    if _PLAIN.issuperset(map(type, messages)):
        return _ENCODE(messages)
    return _ENCODE([_entry(message) for message in messages])


def _entry(message: Message) -> Mapping[str, str | Raw | None]:
    fields = message.fields
    entry: dict[str, str | Raw | None] = {"role": message.role}
    if fields.content_is is None:
        entry["content"] = message.content
    elif fields.content_is == "null":
        entry["content"] = None
    for name in _TEXTS:
        text = getattr(fields, name)
        if text is not None:
            entry[name] = text
    if fields.tool_calls is not None:
        entry["tool_calls"] = Raw(fields.tool_calls.encode())
    if fields.carried is not None:
        entry |= _DECODE_OBJECT(fields.carried)
    return entry


def field_names(message: Message) -> set[str]:
    """The names of what a message holds beside its role and its content."""
    return set(_entry(message)) - {"role", "content"}


def conversation_of(text: str | bytes) -> Conversation:
    """The messages that ``conversation_json`` wrote. ``msgspec.DecodeError`` for any other text."""
    try:
        return tuple([Message(one.role, one.content) for one in _DECODE_PLAIN(text)])
    except msgspec.ValidationError:
        return tuple([_message(entry) for entry in _DECODE_ENTRIES(text)])


def _message(entry: dict[str, Raw]) -> Message:
    role = _DECODE_TEXT(entry.pop("role", _NULL))
    content = entry.pop("content", None)
    calls = entry.pop("tool_calls", None)
    content_is: Literal["null", "missing"] | None = None
    if content is None or bytes(content) == _NULL:
        content_is = "missing" if content is None else "null"
    text = "" if content is None or content_is is not None else _DECODE_TEXT(content)
    tool_calls = None if calls is None else bytes(calls).decode()
    return message_with(role, text, fields_of(entry, tool_calls=tool_calls, content_is=content_is))


def fields_of(
    others: Mapping[str, Raw],
    *,
    tool_calls: str | None = None,
    content_is: Literal["null", "missing"] | None = None,
) -> MessageFields:
    """The fields of a message that has these ``others`` beside role, content and calls; null is none."""
    texts: dict[str, str] = {}
    carried: dict[str, Raw] = {}
    for name, raw in others.items():
        value = bytes(raw)
        if name in _TEXTS and value.startswith(b'"'):
            texts[name] = _DECODE_TEXT(value)
        elif value != _NULL:
            carried[name] = raw
    return MessageFields(
        reasoning_content=texts.get("reasoning_content"),
        thinking=texts.get("thinking"),
        reasoning=texts.get("reasoning"),
        tool_calls=tool_calls,
        tool_call_id=texts.get("tool_call_id"),
        name=texts.get("name"),
        content_is=content_is,
        carried=_on_one_line(_ENCODE(carried)) if carried else None,
    )


def _on_one_line(encoded: bytes) -> str:
    """The JSON without line ends, which can only stand in white space between tokens."""
    if b"\n" in encoded or b"\r" in encoded:
        encoded = msgspec.json.format(encoded, indent=-1)
    return encoded.decode()
