"""The type of a format, the type of what it makes of a row, and functions that several formats share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from assay.core.schema import CALL, Message, MessageFields, message_with, roles_of
from assay.read.formats.names import CALLERS, Names, plain
from assay.read.formats.tools import NoCalls, calls_in, spoken_calls
from assay.read.sources import RawRecord
from assay.storage.conversations import fields_of

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
    tools: str | None = None
    """The tools that the assistant could call, as a JSON array."""


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
    tools: str | None = None
    """The tools that the assistant could call, as a JSON array."""

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
    alone: Alone | None = None
    """How a row is read of which no format looks at another field than one."""


class Alone(NamedTuple):
    """A short way for nearly all rows of a format: a conversation, and nothing beside it."""

    field: str
    """The field that holds the conversation."""
    texts: Callable[[Row, Names], list[Message] | None]
    """Its messages; None where they hold more than texts, and so need the long way."""


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


def is_asked(messages: Sequence[Message]) -> bool:
    """Whether there is a question among the messages. A tool's result asks, unless it answers a call."""
    roles = roles_of(messages)
    return "u" in roles or ("t" in roles and CALL not in roles)


def is_blank(text: str) -> bool:
    """Whether the text holds nothing but white space."""
    return not text or text.isspace()


class _Part(msgspec.Struct, gc=False):
    type: str | None = "text"
    text: str | None = None


class _PlainPart(_Part, forbid_unknown_fields=True, gc=False):
    """A part of which these fields are all there is."""


_Content = str | Sequence[_Part | str] | UnsetType | None
_PlainContent = str | Sequence[_PlainPart | str] | UnsetType | None


class WireMessage(msgspec.Struct, gc=False):
    """A message as chat formats write it."""

    role: str | None = None
    speaker: str | None = msgspec.field(name="from", default=None)
    content: _Content = UNSET
    value: _Content = UNSET
    label: str | UnsetType | None = UNSET


class _PlainWire(WireMessage, forbid_unknown_fields=True, gc=False):
    """A message of which these fields are all there is. Decoded first, for nearly all messages are so."""

    content: _PlainContent = UNSET
    value: _PlainContent = UNSET


class _Speech(msgspec.Struct, gc=False):
    """The fields of a message that has others too. Its label may be no text, and is among the others."""

    role: str | None = None
    speaker: str | None = msgspec.field(name="from", default=None)
    content: _Content = UNSET
    value: _Content = UNSET


class _FullWire(WireMessage, gc=False):
    others: dict[str, Raw] = {}
    """All other fields, null ones too."""


_DECODE_PLAIN = msgspec.json.Decoder(str | _PlainWire | list[str | _PlainWire] | None).decode
_DECODE_PLAIN_LIST = msgspec.json.Decoder(list[_PlainWire]).decode
_DECODE_SPEECH = msgspec.json.Decoder(str | _Speech | list[str | _Speech] | None).decode
_DECODE_ENTRIES = msgspec.json.Decoder(str | dict[str, Raw] | list[str | dict[str, Raw]] | None).decode
_DECODE_OBJECTS = msgspec.json.Decoder(list[Row]).decode
_DECODE_PARTS = msgspec.json.Decoder(list[str | Row]).decode
_OWN_FIELDS = frozenset({"role", "from", "content", "value"})
#: The field of a message that holds what its parts hold beside their texts: an object, or null, a part.
PARTS_FIELD = "assay_parts"
_NOTHING = (b"null", b"[]", b"{}")

Wire = str | WireMessage | list[str | WireMessage] | None
"""A text, a message, a list of either, or null."""


def wire_of(data: bytes | Raw) -> Wire:
    """What a field holds in place of messages, with all that each message holds.

    ``msgspec.DecodeError`` where that is something else.
    """
    try:
        plain: Wire = _DECODE_PLAIN(data)
    except msgspec.ValidationError:
        return _full(_DECODE_SPEECH(data), _DECODE_ENTRIES(data))
    return plain


def _full(
    speech: str | _Speech | list[str | _Speech] | None,
    entries: str | dict[str, Raw] | list[str | dict[str, Raw]] | None,
) -> Wire:
    if isinstance(speech, _Speech) and isinstance(entries, dict):
        return _wire(speech, entries)
    if isinstance(speech, list) and isinstance(entries, list):
        return [
            _wire(one, entry) if isinstance(one, _Speech) and isinstance(entry, dict) else str(one)
            for one, entry in zip(speech, entries, strict=True)
        ]
    return speech if isinstance(speech, str) else None


def _wire(speech: _Speech, entry: dict[str, Raw]) -> WireMessage:
    others = {name: raw for name, raw in entry.items() if name not in _OWN_FIELDS}
    for name in ("content", "value"):
        beside = _beside_texts(entry[name]) if name in entry else None
        if beside is not None:
            others[PARTS_FIELD] = beside
    label: str | UnsetType | None = UNSET
    raw = others.get("label")
    if raw is not None and bytes(raw).startswith(b'"'):
        label = _DECODE_STRING(others.pop("label"))
    elif raw is not None and bytes(raw) == b"null":
        label = None
        del others["label"]
    return _FullWire(speech.role, speech.speaker, speech.content, speech.value, label, others)


def _beside_texts(content: Raw) -> Raw | None:
    """What the parts of a content hold beside type and text, as a list; None where that is nothing."""
    if not bytes(content).startswith(b"["):
        return None
    held = [
        {}
        if isinstance(part, str)
        else {
            name: raw
            for name, raw in part.items()
            if name not in ("type", "text") and bytes(raw) not in _NOTHING
        }
        for part in _DECODE_PARTS(content)
    ]
    return Raw(_ENCODE([one or None for one in held])) if any(held) else None


_DECODE_STRING = msgspec.json.Decoder(str).decode


#: Names of a message's fields, as ``plain`` gives them, that some formats write for those that are read.
_INSIDE = {"parts": "content", "role": "role", "from": "from", "content": "content", "value": "value"}

#: What an object of a list calls a question and its answer, where it holds both.
_ASKED = frozenset({"input", "prompt", "question", "query", "instruction"})
_ANSWERED = frozenset({"output", "response", "answer", "completion"})


class _Written(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A speaker and a text, as OpenAI's format has them."""

    speaker: str = msgspec.field(name="role")
    text: str = msgspec.field(name="content")


class _Said(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A speaker and a text, as ShareGPT has them."""

    speaker: str = msgspec.field(name="from")
    text: str = msgspec.field(name="value")


_DECODE_WRITTEN = msgspec.json.Decoder(list[_Written]).decode
_DECODE_SAID = msgspec.json.Decoder(list[_Said]).decode


def texts_in(row: Row, field: str, names: Names, *, sharegpt: bool = False) -> list[Message] | None:
    """The messages of the list in ``field``, if each is a known speaker with a text; else None.

    Nearly all messages are so, and to read them needs no look at what else there may be.
    """
    raw = row.get(field)
    if raw is None or names.fields:
        return None
    decode: Callable[[Raw], Sequence[_Said | _Written]] = _DECODE_SAID if sharegpt else _DECODE_WRITTEN
    roles = names.roles
    try:
        return [Message(roles[one.speaker], one.text) for one in decode(raw)]
    except (msgspec.DecodeError, RecursionError, KeyError):
        return None


def chat_in(row: Row, field: str, names: Names) -> list[Message]:
    """The messages of the list in ``field``, as given; Unreadable where one is neither text nor call."""
    texts = texts_in(row, field, names)
    if texts is not None:
        return texts
    if names.fields:
        return messages_of(wire_messages(row, field, names), names)
    try:
        return messages_of(decoded(row, field, _listed), names)
    except Nameless:
        return messages_of(wire_messages(row, field, names), names)


def wire_messages(row: Row, field: str, names: Names) -> Sequence[WireMessage]:
    """The list of messages in ``field``, whatever their fields are called."""
    wires = decoded(row, field, _listed)
    if names.inside or any(not wire.role and not wire.speaker for wire in wires):
        renamed = Raw(_ENCODE(list(_renamed(row, field, names))))
        return decoded({field: renamed}, field, _listed)
    return wires


def _listed(data: bytes | Raw) -> Sequence[WireMessage]:
    try:
        return _DECODE_PLAIN_LIST(data)
    except msgspec.ValidationError:
        wire = wire_of(data)
    if isinstance(wire, list):
        messages = [one for one in wire if not isinstance(one, str)]
        if len(messages) == len(wire):
            return messages
    raise msgspec.ValidationError("Expected `array` of messages")


def _renamed(row: Row, field: str, names: Names) -> Iterator[Row]:
    """Yield the messages in ``field``, their fields named as ``WireMessage`` has them.

    ms-swift's ``{"human": …, "assistant": …}`` is two messages, and so is Capybara's ``{"input", "output"}``.
    """
    for message in decoded(row, field, _DECODE_OBJECTS):
        known = _known_names(message, names)
        speakers = [name for name in known if names.roles.get(name.lower()) in ("user", "assistant")]
        said = dict(zip(speakers, speakers, strict=True))
        if len(said) != len(known):
            said = exchange_in(known)
        if "role" in known or "from" in known or not said:
            yield known
        else:
            for speaker, name in said.items():
                yield {"role": Raw(_ENCODE(speaker)), "content": known[name]}


def exchange_in(message: Row) -> dict[str, str]:
    """The fields of a question and its answer by role, where the object has these two and nothing else."""
    asked = [name for name in message if plain(name) in _ASKED]
    answered = [name for name in message if plain(name) in _ANSWERED]
    if len(message) != 2 or len(asked) != 1 or len(answered) != 1:
        return {}
    return {"user": asked[0], "assistant": answered[0]}


def _known_names(message: Row, names: Names) -> Row:
    """The message under known names. A field whose name another one takes is ``other_NAME``."""
    meant = {name: names.inside.get(name) or _INSIDE.get(plain(name), name) for name in message}
    known: Row = {}
    # What the user maps comes first, then what is spelled as it is known.
    for name in sorted(message, key=lambda name: (name not in names.inside, meant[name] != name)):
        known[f"other_{name}" if meant[name] in known else meant[name]] = message[name]
    return known


def messages_of(wires: Iterable[WireMessage], names: Names, *, labels_apart: bool = False) -> list[Message]:
    """The messages as given, with the role for each speaker; Unreadable where one is neither text nor call.

    A message's label is one of its fields, unless the format keeps the assistant's ``labels_apart``.
    """
    roles = names.roles
    messages: list[Message] = []
    for wire in wires:
        name = wire.role or wire.speaker
        content, value = wire.content, wire.value
        if value is not UNSET and (content is UNSET or content is None):
            content, value = value, UNSET
        role = roles.get(name) if name else None
        if (
            role is None
            or value is not UNSET
            or type(wire) is not _PlainWire
            or not isinstance(content, str)
            or (wire.label is not UNSET and (role != "assistant" or not labels_apart))
            or (wire.speaker and wire.role)
        ):
            made = _unusual(wire, name, content, messages, roles, labels_apart=labels_apart)
            joined = None if labels_apart or not messages else _with_call(messages[-1], made, by=name)
            if joined is None:
                messages.append(made)
            else:
                messages[-1] = joined
        else:
            messages.append(Message(role, content))
    return messages


def _unusual(
    wire: WireMessage,
    name: str | None,
    content: object,
    before: Sequence[Message],
    roles: Mapping[str, str],
    *,
    labels_apart: bool,
) -> Message:
    """A message that is not a known speaker's plain text; Unreadable where it is neither text nor call."""
    number = len(before) + 1
    if not name:
        raise Nameless(f"missing_field: message {number} has neither 'role' nor 'from'")
    lower_name, plain_name = name.strip().lower(), plain(name)
    role = (
        "assistant"
        if plain_name in CALLERS
        else roles.get(lower_name) or roles.get(lower_name.rstrip(": ")) or roles.get(plain_name)
    )
    if role is None:
        raise unknown_speaker(name, number, after=before[-1].role if before else None)
    others = _others(wire, content, with_label=role != "assistant" or not labels_apart)
    try:
        calls = _calls_beside(others)
    except NoCalls as error:
        raise Unreadable(
            f"tool_calls: message {number} ({role}) holds calls that cannot be read: {error}"
        ) from (error)
    if calls is not None and role != "assistant":
        raise Unreadable(f"tool_calls: message {number} ({role}) holds a call, which only an assistant makes")
    if plain_name in CALLERS and calls is None and isinstance(content, str):
        return _spoken(content, others, f"message {number} ({name})")
    fields = fields_of(others, tool_calls=calls)
    if calls is not None and (content is UNSET or content is None):
        return message_with(role, "", replace(fields, content_is="missing" if content is UNSET else "null"))
    return message_with(role, _text_of(content, number, role), fields)


def _others(wire: WireMessage, content: object, *, with_label: bool) -> dict[str, Raw]:
    """All that a message holds beside the one name and the one content that are read."""
    others = dict(wire.others) if isinstance(wire, _FullWire) else {}
    if wire.role and wire.speaker:
        others["from"] = Raw(_ENCODE(wire.speaker))
    if wire.value is not UNSET and content is not wire.value:
        others["value"] = Raw(_ENCODE(wire.value))
    if with_label and isinstance(wire.label, str):
        others["label"] = Raw(_ENCODE(wire.label))
    return others


def _calls_beside(others: dict[str, Raw]) -> str | None:
    """The calls among a message's other fields, which are taken out of them."""
    for field in ("tool_calls", "function_call"):
        if field in others:
            calls = calls_in(others.pop(field))
            if calls is not None:
                return calls
    return None


def _spoken(text: str, others: dict[str, Raw], which: str) -> Message:
    """The call that is the text of a message by such a speaker as ``function_call``."""
    try:
        spoken = spoken_calls(text)
    except NoCalls as error:
        raise Unreadable(f"tool_calls: {which} is no call in JSON: {error}") from error
    fields = fields_of(others, tool_calls=spoken.tool_calls, content_is="missing")
    return message_with(
        "assistant",
        "",
        fields if spoken.reasoning is None else replace(fields, reasoning_content=spoken.reasoning),
    )


def _with_call(message: Message, call: Message, *, by: str | None) -> Message | None:
    """The assistant's message with the call that follows it, where a speaker such as ``tool_call`` makes it.

    ms-swift writes parallel calls, and what is said before them, as several messages, and trains on them as
    on one. None where the call is no such one, or holds more than that.
    """
    if by is None or plain(by) not in CALLERS or message.role != "assistant":
        return None
    earlier, later = message.fields, call.fields
    calls = later.tool_calls
    if calls is None or call.content or replace(later, tool_calls=None, content_is=None) != MessageFields():
        return None
    if earlier.tool_calls is not None:
        calls = f"{earlier.tool_calls[:-1]},{calls[1:]}"
    return message_with("assistant", message.content, replace(earlier, tool_calls=calls))


def _text_of(content: object, number: int, role: str) -> str:
    """The text of a content; Unreadable where it is none."""
    if isinstance(content, str):
        return content
    if content is UNSET:
        raise Unreadable(f"missing_field: message {number} ({role}) has neither 'content' nor 'value'")
    if content is None:
        if role == "system":
            return ""
        raise Unreadable(f"empty_content: message {number} ({role}) is null")
    texts: list[str] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif part.type not in _TEXT_PARTS or part.text is None:
            raise Unreadable(f"not_text: message {number} ({role}) has a part of type {part.type!r}")
        else:
            texts.append(part.text)
    return "".join(texts)


_TEXT_PARTS = frozenset({None, "text", "input_text", "output_text"})


def unknown_speaker(name: str, number: int, *, after: str | None) -> Unreadable:
    """The fault that the message of this number, from 1, is by a speaker of no known role.

    ``after``: the role of the message before it. Mostly it shows who answers whom.
    """
    option = f"{name}={'assistant' if after == 'user' else 'user'}"
    return Unreadable(
        f"unknown_speaker: message {number} is by {name!r}; give it a role, such as --map-role {option!r}"
    )
