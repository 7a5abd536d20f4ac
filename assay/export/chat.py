"""What the rows of many trainers share: messages as JSON, prompts and answers, and what loaders stumble on.

The functions on ``roles`` take a letter a message (``suaua``) and give a reason, ``code: detail``, or None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import polars as pl
from msgspec import Raw

from assay.core.calls import as_tojson
from assay.core.schema import CALL, ROLES, Message, turn_positions
from assay.export.contract import Json
from assay.export.kept import NOTHING, Held, Item
from assay.export.pairs import Pair
from assay.export.turned import MASKS, number_in, partial_weight
from assay.storage.conversations import FieldKind

_ROLES = {role[0]: role for role in ROLES}
_WHOSE = {"s": "a system message", "u": "a user's", "a": "the assistant's", "t": "a tool's", CALL: "a call"}

_TEXTS = ("reasoning_content", "thinking", "reasoning", "tool_call_id", "name")
#: Fields of messages that chat templates show, in the order in which rows have them.
SHOWN = ("reasoning_content", "thinking", "reasoning", "tool_calls", "tool_call_id", "name")
#: What an export holds whose trainer hands messages and tools to a chat template.
TO_TEMPLATES = frozenset({*SHOWN, "tools"})

_DECODE_ENTRIES = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_DECODE_OBJECT = msgspec.json.Decoder(dict[str, Raw]).decode
_DECODE_TEXT = msgspec.json.Decoder(str).decode
_ENCODE = msgspec.json.Encoder().encode

_CALLS: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "type": pl.String,
    "function": pl.Struct({"name": pl.String, "arguments": pl.String}),
}
_TYPES: Mapping[FieldKind, pl.DataType] = {
    "text": pl.String(),
    "flag": pl.Boolean(),
    "whole": pl.Int64(),
    "number": pl.Float64(),
    "calls": pl.List(pl.Struct(_CALLS)),
    "calls_with_more": pl.List(pl.Struct({**_CALLS, "extra": pl.String})),
    "json": pl.String(),
}


def messages_of(
    messages: Iterable[Message], held: Held = NOTHING, *, everything: bool = False
) -> list[dict[str, Json]]:
    """The messages as most trainers write them: ``[{"role": …, "content": …}, …]``.

    All have the same keys in a run: those of the fields that any message of it holds and chat templates show,
    or of ``everything`` that any holds. Arguments of calls are texts. A value that is not of one kind in the
    run is JSON in a text.
    """
    names = field_names_of(held, everything=everything)
    if not names:
        return [{"role": message.role, "content": message.content} for message in messages]
    return [_with_fields(message, names, held) for message in messages]


def message_type(held: Held, *, everything: bool = False) -> pl.Struct:
    """The type of such a message in a table."""
    types = {name: _type_of(name, held) for name in field_names_of(held, everything=everything)}
    return pl.Struct({"role": pl.String, "content": pl.String, **types})


def field_names_of(held: Held, *, everything: bool) -> list[str]:
    """The names of the fields that rows have beside role and content, in order."""
    names = [name for name in SHOWN if name in held.fields]
    return [*names, *(name for name in sorted(held.fields) if name not in SHOWN)] if everything else names


def _type_of(name: str, held: Held) -> pl.DataType:
    return pl.String() if name in _TEXTS else _TYPES[held.fields[name]]


def _with_fields(message: Message, names: Sequence[str], held: Held) -> dict[str, Json]:
    fields = message.fields
    carried = {} if fields.carried is None else _DECODE_OBJECT(fields.carried)
    row: dict[str, Json] = {"role": message.role, "content": content_of(message)}
    for name in names:
        if name == "tool_calls":
            more = held.fields[name] == "calls_with_more"
            row[name] = None if fields.tool_calls is None else calls_of(fields.tool_calls, with_more=more)
        elif name in _TEXTS:
            text = getattr(fields, name)
            row[name] = text if text is not None else _as_text(carried.get(name))
        else:
            row[name] = _of_kind(carried.get(name), held.fields[name])
    return row


def content_of(message: Message) -> str | None:
    """The message's content; None for a call that has none."""
    return message.content if message.fields.content_is is None else None


def _as_text(raw: Raw | None) -> str | None:
    return None if raw is None else bytes(raw).decode()


def _of_kind(raw: Raw | None, kind: FieldKind) -> Json:
    if raw is None or kind in {"text", "flag", "whole"}:
        return raw
    if kind == "number":
        # A reader that takes the first row for all takes 1 for a whole number.
        return raw if set(bytes(raw)) & set(b".eE") else Raw(bytes(raw) + b".0")
    return _as_text(raw)


def calls_of(tool_calls: str, *, with_more: bool = False) -> list[Json]:
    """The calls, each with the same keys; their arguments are texts, with every digit as it was written.

    Arguments that are an object are written as a chat template shows them.

    ``with_more`` adds ``extra``: what else a call holds, as JSON in a text, or null.

    >>> calls_of('[{"function": {"name": "add", "arguments": {"a": 1.10}}}]')
    [{'id': None, 'type': None, 'function': {'name': 'add', 'arguments': '{"a": 1.10}'}}]
    """
    return [_call(call, with_more=with_more) for call in _DECODE_ENTRIES(tool_calls)]


def _call(call: Mapping[str, Raw], *, with_more: bool) -> dict[str, Json]:
    function = _DECODE_OBJECT(call["function"])
    row: dict[str, Json] = {
        "id": _text_in(call.get("id")),
        "type": _text_in(call.get("type")),
        "function": {
            "name": _text_in(function.get("name")),
            "arguments": _arguments_of(function),
        },
    }
    if with_more:
        more = {name: raw for name, raw in call.items() if name not in row}
        of_function = {name: raw for name, raw in function.items() if name not in {"name", "arguments"}}
        if of_function:
            more["function"] = Raw(_ENCODE(of_function))
        row["extra"] = _ENCODE(more).decode() if more else None
    return row


def _arguments_of(function: Mapping[str, Raw]) -> str:
    """The arguments as a text: the input's own, or its object as a chat template shows it."""
    raw = function.get("arguments", Raw(b"{}"))
    value = bytes(raw)
    return (_DECODE_TEXT(value) or "{}") if value.startswith(b'"') else as_tojson(value.decode())


def _text_in(raw: Raw | None) -> str | None:
    """The text, or the JSON of anything else as one."""
    if raw is None:
        return None
    value = bytes(raw)
    return _DECODE_TEXT(value) if value.startswith(b'"') else value.decode()


def calls_in_words(tool_calls: str) -> list[str]:
    """Each call as ``{"name": …, "arguments": {…}}``, a text of its own; arguments are an object.

    >>> calls_in_words('[{"function": {"name": "add", "arguments": {"a": 1}}}]')
    ['{"name":"add","arguments":{"a": 1}}']
    """
    found: list[str] = []
    for call in _DECODE_ENTRIES(tool_calls):
        function = _DECODE_OBJECT(call["function"])
        arguments = Raw(_arguments_of(function).encode())
        found.append(_ENCODE({"name": function["name"], "arguments": arguments}).decode())
    return found


def arguments_problem(messages: Iterable[Message]) -> str | None:
    """``arguments_no_object``: which call has arguments that are no JSON object; None where none has.

    Some trainers read the text of arguments, and die on one that holds no object.
    """
    for number, message in enumerate(messages, 1):
        if message.fields.tool_calls is None:
            continue
        for call in _DECODE_ENTRIES(message.fields.tool_calls):
            try:
                _DECODE_OBJECT(_arguments_of(_DECODE_OBJECT(call["function"])))
            except msgspec.DecodeError:
                return f"arguments_no_object: message {number} calls with arguments that are no object"
    return None


def text_beside_call(messages: Iterable[Message]) -> str | None:
    """``text_beside_call``: which message both says something and calls a tool; None where none does."""
    for number, message in enumerate(messages, 1):
        if message.fields.tool_calls is not None and message.content.strip():
            return f"text_beside_call: message {number} says something, and calls a tool"
    return None


def with_tools(row: dict[str, Json], of: Item | Pair, absent: str) -> dict[str, Json]:
    """The row with its ``tools``, a JSON text, where any record of the run has some.

    A record without any has ``absent``: never null, because ``datasets`` takes a column's type from the first
    10 MB of a file, and dies on a text where these hold null alone.
    """
    if not of.held.tools:
        return row
    return {**row, "tools": absent if of.tools is None else of.tools}


def trained_turns(item: Item) -> list[bool]:
    """Whether each message is trained on: the assistant's are, unless the input or a rule masks them."""
    by_rule = {turn_positions(item.messages)[turn] for turn in item.masked} if item.masked else set()
    return [
        message.role == "assistant" and place not in by_rule and not _is_masked(message)
        for place, message in enumerate(item.messages)
    ]


def _is_masked(message: Message) -> bool:
    """Whether the input says that the message is not to be learned: ``weight: 0``, ``train: false`` …"""
    if message.fields.carried is None:
        return False
    carried = _DECODE_OBJECT(message.fields.carried)
    values = [bytes(carried.get(name, b"1")).decode() for name in MASKS]
    return any(value == "false" or number_in(value) == 0 for value in values)


def weight_between(item: Item) -> str | None:
    """``weight_between``: which turn has a weight that is neither 0 nor 1; None where none has.

    The weight of a turn that is not to be learned anyway is none.
    """
    for place, (message, is_trained) in enumerate(zip(item.messages, trained_turns(item), strict=True)):
        if is_trained and (weight := partial_weight(message)) is not None:
            return f"weight_between: message {place + 1} has the weight {weight}, which is neither 0 nor 1"
    return None


def ends_on_another(roles: str) -> str | None:
    """``ends_on_user``, ``ends_on_tool``, …: why the last message is no answer, nor a call; None where it is.

    >>> ends_on_another("sua"), ends_on_another("uau")
    (None, "ends_on_user: message 3 is the last, and not the assistant's")
    """
    if roles.endswith(("a", CALL)):
        return None
    return f"ends_on_{_ROLES[roles[-1]]}: message {len(roles)} is the last, and not the assistant's"


def no_prompt(roles: str) -> str | None:
    """``no_prompt``: why there is nothing before the last message; None where there is."""
    return "no_prompt: the answer is the only message" if len(roles) == 1 else None


def prompt_of(pair: Pair) -> list[dict[str, Json]]:
    """The messages before the two answers."""
    return messages_of(pair.prompt, pair.held)


def answer_of(message: Message, held: Held = NOTHING) -> dict[str, Json]:
    """One answer as a message."""
    (row,) = messages_of([message], held)
    return row


def without_prompt(pair: Pair) -> str | None:
    """``no_prompt``: why there is nothing before the answers; None where there is."""
    return None if pair.prompt else "no_prompt: the answers are the only messages"


def late_system(roles: str) -> str | None:
    """``late_system_message``: why a system message is not the first; None where none is elsewhere.

    >>> late_system("sua"), late_system("uas")
    (None, 'late_system_message: message 3 is a system message')
    """
    place = roles.find("s", 1)
    return None if place < 0 else f"late_system_message: message {place + 1} is a system message"


#: Matches as much as alternates: after a system message a user's or a tool's message, and an answer or a
#: call, in turn.
_IN_TURN = re.compile("s?(?:[ut][ac])*")
#: The same with several results of tools, one behind the other, where one is due.
_IN_TURN_BUT_TOOLS = re.compile("s?(?:(?:u|(?<=[ac])t+)[ac])*")


def out_of_turn(roles: str, *, tools_in_a_row: bool = False) -> str | None:
    """``roles_do_not_alternate``: why prompt and answer do not take turns, from a prompt to an answer.

    A tool's message counts as a prompt, a call as an answer. ``tools_in_a_row`` allows several of a tool
    where one is due.

    >>> out_of_turn("suata"), out_of_turn("uaua"), out_of_turn("uua")
    (None, None, "roles_do_not_alternate: message 2 is a user's")
    """
    pattern = _IN_TURN_BUT_TOOLS if tools_in_a_row else _IN_TURN
    found = pattern.match(roles)
    end = found.end() if found else 0
    if end == len(roles):
        return None
    place = end if roles[end] not in "ut" else min(end + 1, len(roles) - 1)
    return f"roles_do_not_alternate: message {place + 1} is {_WHOSE[roles[place]]}"


def no_side(item: Item) -> str | None:
    """``no_side``: why nothing says whether the answer is a good one; None where a person or a rule does."""
    return "no_side: the record is no side of a pair, and no rule judges it" if item.verdict is None else None
