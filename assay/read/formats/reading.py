"""The type of a format, the type of what it makes of a row, and functions that several formats share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from assay.core.schema import Message
from assay.read.formats.names import CALLERS, Names, plain
from assay.read.sources import RawRecord

T = TypeVar("T")

#: A JSON object whose values are still bytes, so that fields that are carried along stay exact.
Row = dict[str, Raw]

_DECODE_ROW = msgspec.json.Decoder(Row).decode
_ENCODE = msgspec.json.Encoder().encode


class Unreadable(Exception):
    """A row cannot become records; the message is the reason."""


class Nameless(Unreadable):
    """A message names no speaker; the message is the reason."""


class MissingField(Exception):
    """A row lacks a field of its file's format; the message is the field's name."""


class Draft(NamedTuple):
    """One record as a format makes it of a row, before what all formats have in common is added."""

    messages: list[Message]
    used: Collection[str] = ()
    """The fields whose whole value is in ``messages``. All others are carried along."""
    labels: list[str | None] | None = None
    """The label of each message in the input."""
    given: Mapping[str, float] = {}
    """What people gave the last turn, by name, beyond what its label says."""
    added: Mapping[str, Raw] = {}
    """Fields of our own to carry along."""
    is_answer: bool = False
    """Whether the row keeps prompt and answer apart, so that a history belongs in front of the prompt."""
    nemo_prompt: str | None = None
    """The prompt as NeMo-Aligner writes it, where the messages before the last one are made of its parts."""
    problem: str | None = None
    """Why the record is quarantined."""
    drop: str | None = None
    """Why the record is dropped."""
    every_given: list[Mapping[str, float] | None] | None = None
    """What people gave each message, where that is more exact than the labels."""
    left_out: Collection[str] = ()
    """Names of fields that are neither in ``messages`` nor carried along."""


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
    more: More | None = None
    """What few records have."""

    @property
    def left_out(self) -> Collection[str]:
        """Names of fields that are neither in ``messages`` nor in ``rest``, each once."""
        return () if self.more is None else self.more.left_out


class More(NamedTuple):
    """What few records have."""

    given: list[Mapping[str, float] | None] | None = None
    """What people gave each message, by name."""
    nemo_prompt: str | None = None
    """The prompt in NeMo-Aligner's own text, where the messages are made of its parts."""
    left_out: Collection[str] = ()
    """Names of fields that are neither in ``messages`` nor in ``rest``, each once."""


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
    read: Callable[[Row, Names], list[Draft]] | None
    """Makes at least one record of a row, or raises Unreadable or MissingField."""
    read_file: FileReader | None = None
    """Replaces ``read`` where several lines make a record."""
    beside: frozenset[str] = frozenset()
    """Other fields that it looks at."""
    alone: str | None = None
    """The field that holds the whole conversation, where no format looks at another field of the row."""


class FileReader(Protocol):
    """Reads a whole file."""

    def __call__(
        self,
        rows: Iterable[tuple[RawRecord, Row | str]],
        read_row: Callable[[Row, str], list[Reading]],
        names: Names,
    ) -> Iterator[PlacedReading]:
        """Yield all readings in the order of the lines.

        A line that holds no row comes as a string with the reason. ``read_row`` reads a row that lacks a
        field of the file's format: as the format that it has, or as a problem that names the field.
        """


class PatchedRow(Row):
    """A row in which NaN and infinities are null, because JSON has no such numbers."""

    patched: tuple[str, ...] = ()
    """The fields that held one."""


def row_of(data: bytes) -> Row | str:
    """The row that ``data`` holds, or the reason why it holds none. A ``PatchedRow`` where it holds NaN."""
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
        return _patched(data) or _lone_surrogate(data) or f"not_json: {error}"
    except RecursionError:
        return "too_deep: nested too deeply"


# A JSON string, or what Python's json.dumps writes for a float that JSON cannot express.
_STRING_OR_NO_NUMBER = re.compile(rb'"(?:[^"\\]++|\\[\s\S])*+"|-?\bInfinity\b|\bNaN\b')
_MARK = b'"\xef\xbf\xbfNaN"'


def _patched(data: bytes) -> Row | None:
    """The row with null for each NaN and infinity; None where these are not what is wrong with it."""
    if b"NaN" not in data and b"Infinity" not in data:
        return None

    def with_(word: bytes) -> Row:
        return _DECODE_ROW(
            _STRING_OR_NO_NUMBER.sub(lambda found: found[0] if found[0][:1] == b'"' else word, data)
        )

    try:
        row, marked = PatchedRow(with_(b"null")), with_(_MARK)
    except (msgspec.DecodeError, RecursionError):
        return None
    row.patched = tuple(name for name in row if bytes(row[name]) != bytes(marked[name]))
    return row


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


def on_one_line(fields: Mapping[str, Raw]) -> bytes | None:
    """The fields as one JSON object on one line; None if there are none. Unreadable if they are too deep."""
    if not fields:
        return None
    line = _ENCODE(fields)
    if b"\n" in line or b"\r" in line:
        # A line end can stand only in whitespace between tokens.
        try:
            line = msgspec.json.format(line, indent=-1)
        except RecursionError as error:
            raise Unreadable("too_deep: nested too deeply") from error
    return line


def is_blank(text: str) -> bool:
    """Whether the text holds nothing but white space."""
    return not text or text.isspace()


# One object as the default, so that ``is`` shows whether a message has a call.
_NO_CALL = Raw(b"null")


class _Part(msgspec.Struct, gc=False):
    type: str | None = "text"
    text: str | None = None


_Content = str | list[_Part | str] | UnsetType | None


class WireMessage(msgspec.Struct, gc=False):
    """A message as chat formats write it."""

    role: str | None = None
    speaker: str | None = msgspec.field(name="from", default=None)
    content: _Content = UNSET
    value: _Content = UNSET
    label: Raw | UnsetType = UNSET
    tool_calls: Raw = _NO_CALL
    function_call: Raw = _NO_CALL


_DECODE_MESSAGES = msgspec.json.Decoder(list[WireMessage]).decode
_DECODE_OBJECTS = msgspec.json.Decoder(list[Row]).decode

#: Names of a message's fields, as ``plain`` gives them, that some formats write for those that are read.
_INSIDE = {"parts": "content", "role": "role", "from": "from", "content": "content", "value": "value"}


def chat_in(row: Row, field: str, names: Names) -> list[Message]:
    """The messages of the list in ``field``, as given; Unreadable where one is not plain text."""
    if names.fields:
        return messages_of(wire_messages(row, field, names), names)
    try:
        return messages_of(decoded(row, field, _DECODE_MESSAGES), names)
    except Nameless:
        return messages_of(wire_messages(row, field, names), names)


def wire_messages(row: Row, field: str, names: Names) -> list[WireMessage]:
    """The list of messages in ``field``, whatever their fields are called."""
    wires = decoded(row, field, _DECODE_MESSAGES)
    if names.inside or any(not wire.role and not wire.speaker for wire in wires):
        renamed = Raw(_ENCODE(list(_renamed(row, field, names))))
        return decoded({field: renamed}, field, _DECODE_MESSAGES)
    return wires


def _renamed(row: Row, field: str, names: Names) -> Iterator[Row]:
    """Yield the messages in ``field``, their fields named as ``WireMessage`` has them.

    ms-swift's ``{"human": …, "assistant": …}`` is two messages.
    """
    for message in decoded(row, field, _DECODE_OBJECTS):
        known = {names.inside.get(name) or _INSIDE.get(plain(name), name): message[name] for name in message}
        speakers = [name for name in known if names.roles.get(name.lower()) in ("user", "assistant")]
        if "role" in known or "from" in known or len(speakers) != len(known):
            yield known
        else:
            for speaker in speakers:
                yield {"role": Raw(_ENCODE(speaker)), "content": known[speaker]}


def messages_of(wires: Iterable[WireMessage], names: Names) -> list[Message]:
    """The messages as given, with the role for each speaker; Unreadable where one is not plain text."""
    roles = names.roles
    messages: list[Message] = []
    for wire in wires:
        name = wire.role or wire.speaker
        content = wire.content
        if (content is UNSET or content is None) and wire.value is not UNSET:
            content = wire.value
        has_call = wire.tool_calls is not _NO_CALL or wire.function_call is not _NO_CALL
        role = roles.get(name) if name else None
        if role is None or has_call or not isinstance(content, str):
            role, content = _unusual(wire, name, content, len(messages) + 1, roles)
        messages.append(Message(role, content))
    return messages


_EMPTY_CALLS = (b"null", b"[]", b"{}", b'""')


def _unusual(
    wire: WireMessage, name: str | None, content: object, number: int, roles: Mapping[str, str]
) -> tuple[str, str]:
    """Role and content of a message that is not a known speaker's plain text; Unreadable for no text."""
    if not name:
        raise Nameless(f"missing_field: message {number} has neither 'role' nor 'from'")
    plain_name = name.strip().lower()
    if plain_name in CALLERS:
        raise Unreadable(f"tool_calls: message {number} ({name}) is a call, not text")
    role = roles.get(plain_name) or roles.get(plain_name.rstrip(": "))
    if role is None:
        raise unknown_speaker(name, number)
    for calls in (wire.tool_calls, wire.function_call):
        if bytes(calls).strip() not in _EMPTY_CALLS:
            raise Unreadable(f"tool_calls: message {number} ({role}) holds a call besides text")
    if content is UNSET:
        raise Unreadable(f"missing_field: message {number} ({role}) has neither 'content' nor 'value'")
    if content is None:
        if role == "system":
            return role, ""
        raise Unreadable(f"empty_content: message {number} ({role}) is null")
    if isinstance(content, str):
        return role, content
    texts: list[str] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif part.type not in _TEXT_PARTS or part.text is None:
            raise Unreadable(f"not_text: message {number} ({role}) has a part of type {part.type!r}")
        else:
            texts.append(part.text)
    return role, "".join(texts)


_TEXT_PARTS = frozenset({None, "text", "input_text", "output_text"})


def unknown_speaker(name: str, number: int) -> Unreadable:
    """The fault that the message of this number, from 1, is by a speaker of no known role."""
    option = f"{name}=user"
    return Unreadable(
        f"unknown_speaker: message {number} is by {name!r}; give it a role, such as --map-role {option!r}"
    )
