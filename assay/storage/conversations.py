"""The messages of a record as JSON text, and back: whatever a message holds comes out as it went in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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


FieldKind = Literal["text", "flag", "whole", "number", "calls", "calls_with_more", "json"]
"""What the values of a message's field are in all messages of some records. ``calls`` have an id, a type and
a function with a name and arguments, ``calls_with_more`` something else too. ``json`` is anything."""

_WHOLE = re.compile(rb"-?[0-9]{1,18}")
_CALL = {"id", "type", "function"}
_FUNCTION = {"name", "arguments"}


def field_kinds(messages: Iterable[Message]) -> dict[str, FieldKind]:
    """The fields that these messages hold beside role and content, by name."""
    found: dict[str, FieldKind] = {}
    for message in messages:
        if type(message) is Message:
            continue
        fields = message.fields
        found = merged_kinds(found, {name: "text" for name in _TEXTS if getattr(fields, name) is not None})
        if fields.tool_calls is not None:
            found = merged_kinds(found, {"tool_calls": _kind_of_calls(fields.tool_calls)})
        if fields.carried is not None:
            carried = _DECODE_OBJECT(fields.carried)
            found = merged_kinds(found, {name: _kind_of(bytes(raw)) for name, raw in carried.items()})
    return found


def merged_kinds(*kinds: Mapping[str, FieldKind]) -> dict[str, FieldKind]:
    """The kinds of the fields of all these messages together, by name, sorted.

    >>> merged_kinds({"weight": "whole"}, {"weight": "number", "name": "text"}, {"name": "text"})
    {'name': 'text', 'weight': 'number'}
    """
    found: dict[str, FieldKind] = {}
    for some in kinds:
        for name, kind in some.items():
            found[name] = _of_both(found.get(name, kind), kind)
    return dict(sorted(found.items()))


def _of_both(one: FieldKind, other: FieldKind) -> FieldKind:
    if one == other:
        return one
    pair = {one, other}
    if pair == {"whole", "number"}:
        return "number"
    return "calls_with_more" if pair == {"calls", "calls_with_more"} else "json"


def _kind_of(value: bytes) -> FieldKind:
    if value.startswith(b'"'):
        return "text"
    if value in {b"true", b"false"}:
        return "flag"
    if _WHOLE.fullmatch(value):
        return "whole"
    # A number of more digits, an object or a list.
    return "number" if value[:1] in b"-0123456789" and set(value) & set(b".eE") else "json"


def _kind_of_calls(calls: str) -> FieldKind:
    for call in _DECODE_ENTRIES(calls):
        function = _DECODE_OBJECT(call.get("function", b"{}"))
        if set(call) - _CALL or set(function) - _FUNCTION:
            return "calls_with_more"
    return "calls"


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
