"""The type of a format, the type of what it makes of a row, and functions that several formats share."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from assay.core.schema import Message
from assay.read.sources import RawRecord

T = TypeVar("T")

#: A JSON object whose values are still bytes, so that fields that are carried along stay exact.
Row = dict[str, Raw]

_DECODE_ROW = msgspec.json.Decoder(Row).decode
_ENCODE = msgspec.json.Encoder().encode

#: Every known name of a speaker, in lower case, with its role.
SPEAKERS: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "instruction": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "gpt4": "assistant",
    "gpt-4": "assistant",
    "gpt-3.5": "assistant",
    "claude": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "gemini": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "tool_response": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "ipython": "tool",
}

#: Speakers whose messages are calls of tools, not text.
CALLERS = frozenset({"function_call", "function-call", "tool_call", "tool_calls"})


class Unreadable(Exception):
    """A row cannot become records; the message is the reason."""


class MissingField(Exception):
    """A row lacks a field of its file's format; the message is the field's name."""


class Reading(NamedTuple):
    """One record of a row: its messages, or why it has none."""

    messages: list[Message]
    labels: list[str | None] | None = None
    """The label of each message in the input."""
    rest: bytes | None = None
    """The row's other fields as one JSON object."""
    problem: str | None = None
    """Why the record is quarantined."""
    drop: str | None = None
    """Why the record is dropped."""


class PlacedReading(NamedTuple):
    """A reading and the raw record that it comes from."""

    raw: RawRecord
    part: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class Format:
    """How rows of one format become records: each row by itself, or all rows of a file together."""

    name: str
    keys: tuple[frozenset[str], ...]
    """A row of this format has all fields of at least one of these sets."""
    fits: Callable[[Row], bool]
    """Whether a row with such fields is of this format: a quick look at its values, not a full check."""
    read: Callable[[Row], list[Reading]] | None
    """Makes at least one reading of a row, or raises Unreadable or MissingField."""
    read_file: FileReader | None = None
    """Replaces ``read`` where several lines make a record."""


class FileReader(Protocol):
    """Reads a whole file."""

    def __call__(
        self, rows: Iterable[tuple[RawRecord, Row | str]], misfit: Callable[[Row, str], str]
    ) -> Iterator[PlacedReading]:
        """Yield all readings in the order of the lines.

        A line that holds no row comes as a string with the reason. ``misfit`` gives the reason for a row
        that lacks a field.
        """


def row_of(data: bytes) -> Row | str:
    """The row that ``data`` holds, or the reason why it holds none."""
    try:
        if not data.isascii():
            # The decoder does not decode, and so does not check, fields that are carried along.
            str(data, "utf-8")
        return _DECODE_ROW(data)
    except UnicodeDecodeError as error:
        return f"not_utf8: {error.reason} at byte {error.start} of the line"
    except msgspec.ValidationError as error:
        return f"not_an_object: {error}"
    except msgspec.DecodeError as error:
        return _lone_surrogate(data) or f"not_json: {error}"
    except RecursionError:
        return "too_deep: nested too deeply"


def _lone_surrogate(data: bytes) -> str | None:
    """The reason, if the only fault of the JSON in ``data`` is half a surrogate pair; else None."""
    if b"\\u" not in data:
        return None
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        return f"lone_surrogate: \\u{half:04x} without its other half"
    except (ValueError, RecursionError):
        return None
    return None


def decoded(row: Row, field: str, decode: Callable[[Any], T]) -> T:
    """The value of ``field``; MissingField where it is missing, Unreadable where it has another type."""
    raw = row.get(field)
    if raw is None:
        raise MissingField(field)
    try:
        return decode(raw)
    except msgspec.DecodeError as error:
        raise Unreadable(f"wrong_type: in {field!r}: {error}") from error
    except RecursionError as error:
        raise Unreadable(f"too_deep: {field!r} is nested too deeply") from error


_DECODE_TEXT = msgspec.json.Decoder(str | None).decode


def text_of(row: Row, field: str) -> str | None:
    """The string in ``field``; None where it is missing or null."""
    return decoded(row, field, _DECODE_TEXT) if field in row else None


def kind_of(row: Row, field: str) -> str:
    """The first byte of the value of ``field``: ``{``, ``[``, a quote …; empty where it is missing."""
    raw = row.get(field)
    return "" if raw is None else chr(memoryview(raw)[0])


def rest_of(row: Row, used: Collection[str], **added: Raw) -> bytes | None:
    """The row's unused fields and the ``added`` ones as one JSON object on one line; None if none."""
    others = {name: value for name, value in row.items() if name not in used}
    if added:
        others |= added
    if not others:
        return None
    rest = _ENCODE(others)
    if b"\n" in rest or b"\r" in rest:
        # A line end can stand only in whitespace between tokens.
        rest = msgspec.json.format(rest, indent=-1)
    return rest


# One object as the default, so that ``is`` shows whether a message has a call.
_NO_CALL = Raw(b"null")


class _Part(msgspec.Struct, gc=False):
    type: str = "text"
    text: str | None = None


class WireMessage(msgspec.Struct, gc=False):
    """A message as chat formats write it."""

    role: str | None = None
    speaker: str | None = msgspec.field(name="from", default=None)
    content: str | list[_Part] | UnsetType | None = UNSET
    value: str | list[_Part] | UnsetType | None = UNSET
    label: str | UnsetType | None = UNSET
    tool_calls: Raw = _NO_CALL
    function_call: Raw = _NO_CALL


_DECODE_MESSAGES = msgspec.json.Decoder(list[WireMessage]).decode


def wire_messages(row: Row, field: str) -> list[WireMessage]:
    """The list of messages in ``field``."""
    return decoded(row, field, _DECODE_MESSAGES)


def messages_of(wires: Iterable[WireMessage]) -> list[Message]:
    """The messages as given, with the role for each speaker; Unreadable where one is not plain text."""
    messages: list[Message] = []
    for wire in wires:
        name = wire.role or wire.speaker
        content = wire.value if wire.content is UNSET else wire.content
        has_call = wire.tool_calls is not _NO_CALL or wire.function_call is not _NO_CALL
        role = SPEAKERS.get(name) if name else None
        if role is None or has_call or not isinstance(content, str):
            role, content = _unusual(wire, name, content, len(messages) + 1)
        messages.append(Message(role, content))
    return messages


_EMPTY_CALLS = (b"null", b"[]", b"{}", b'""')


def _unusual(wire: WireMessage, name: str | None, content: object, number: int) -> tuple[str, str]:
    """Role and content of a message that is not a known speaker's plain text; Unreadable for no text."""
    if not name:
        raise Unreadable(f"missing_field: message {number} has neither 'role' nor 'from'")
    plain_name = name.strip().lower()
    if plain_name in CALLERS:
        raise Unreadable(f"tool_calls: message {number} ({name}) is a call, not text")
    role = SPEAKERS.get(plain_name)
    if role is None:
        raise Unreadable(f"unknown_speaker: message {number} is by {name!r}")
    for calls in (wire.tool_calls, wire.function_call):
        if bytes(calls).strip() not in _EMPTY_CALLS:
            raise Unreadable(f"tool_calls: message {number} ({role}) holds a call besides text")
    if content is UNSET:
        raise Unreadable(f"missing_field: message {number} ({role}) has neither 'content' nor 'value'")
    if content is None:
        raise Unreadable(f"empty_content: message {number} ({role}) is null")
    if isinstance(content, str):
        return role, content
    texts: list[str] = []
    for part in content if isinstance(content, list) else ():
        if part.type not in ("text", "input_text", "output_text") or part.text is None:
            raise Unreadable(f"not_text: message {number} ({role}) has a part of type {part.type!r}")
        texts.append(part.text)
    return role, "".join(texts)
