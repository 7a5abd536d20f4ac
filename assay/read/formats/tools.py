"""Tools and calls of them, in the shapes that people write → the one that chat templates take.

transformers takes tools and calls as OpenAI writes them: ``{"type": "function", "function": {"name", …}}``
(huggingface.co/docs/transformers, "Tool use"). Hermes' and LLaMA-Factory's data sets leave the outer object
out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from assay.core.calls import Json, names_of
from assay.core.schema import THOUGHT_MARKS, Message, thought_end

#: Fields of a row that hold its tools: today's, and that of OpenAI's first function calls.
TOOL_FIELDS = ("tools", "functions")
#: How others than OpenAI call a tool's ``parameters``: Anthropic and MCP.
_PARAMETERS = ("parameters", "input_schema", "inputSchema")

_DECODE = msgspec.json.Decoder(str | dict[str, Raw] | list[Raw] | None).decode
_DECODE_OBJECT = msgspec.json.Decoder(dict[str, Raw]).decode
_DECODE_TEXT = msgspec.json.Decoder(str).decode
_ENCODE = msgspec.json.Encoder().encode
_NULL = b"null"
_FUNCTION = b'"function"'

#: What Hermes' system messages put around their tools.
_TOOLS_IN_TEXT = re.compile(r"<tools>(.*)</tools>", re.DOTALL)


class NoCalls(Exception):
    """The value holds no calls of tools. Its text says what is wrong with it."""


class SpokenCalls(NamedTuple):
    """A message of a speaker such as ``function_call``, whose text is the calls."""

    tool_calls: str
    reasoning: str | None


def calls_in(raw: Raw) -> str | None:
    """The calls in a ``tool_calls`` or a ``function_call`` as a JSON array; None where there are none.

    The array, one call, or a text of either. ``NoCalls`` for anything else.
    """
    entries = _entries(raw)
    if not entries:
        return None
    calls = [_call(entry) for entry in entries]
    return _compact(calls)


def spoken_calls(text: str) -> SpokenCalls:
    """The calls that are the text of a message; ``NoCalls`` where it is none.

    Reasoning may precede them, as LLaMA-Factory allows (data/formatter.py, FunctionFormatter).
    """
    end = thought_end(text)
    calls = calls_in(Raw(_ENCODE(text[end:])))
    if calls is None:
        raise NoCalls("it is empty")
    thought = text[:end].strip()
    for opening, closing in THOUGHT_MARKS:
        thought = thought.removeprefix(opening).removesuffix(closing).strip()
    return SpokenCalls(calls, thought or None)


def tools_in(raw: Raw) -> str | None:
    """The tools in a row's field as a JSON array; None where there are none.

    The array, one tool, or a text of either. ``NoCalls`` for anything else, such as a list of names.
    """
    tools = [_tool(entry) for entry in _entries(raw)]
    return _compact(tools) if tools else None


def are_in_text(tools: str, messages: Sequence[Message]) -> bool:
    """Whether a system message holds these tools already, between ``<tools>`` and ``</tools>``.

    Hermes' data sets have them in both places. A template that is given them would show them twice.
    """
    texts = [
        found[1]
        for message in messages
        if message.role == "system" and (found := _TOOLS_IN_TEXT.search(message.content))
    ]
    return bool(texts) and all(any(name in text for text in texts) for name in names_of(tools))


def _entries(raw: Raw) -> list[dict[str, Raw]]:
    """The objects in an array, in a text of one, or the one object."""
    try:
        value = _DECODE(raw)
        if isinstance(value, str):
            value = _DECODE(value) if value.strip() else None
        if isinstance(value, str):
            raise NoCalls("it is a text, and no JSON")
        if isinstance(value, dict):
            value = [Raw(_ENCODE(value))] if value else []
        return [_DECODE_OBJECT(entry) for entry in value or ()]
    except msgspec.DecodeError as error:
        raise NoCalls(str(error)) from error
    except RecursionError as error:
        raise NoCalls("it is nested too deeply") from error


def _call(entry: dict[str, Raw]) -> dict[str, Raw]:
    call = _without_null(entry)
    function = _function_in(call)
    if function is None:
        if "name" not in call:
            raise NoCalls("a call names no function")
        arguments = next((call.pop(name) for name in ("arguments", "parameters") if name in call), None)
        function = {"name": call.pop("name")} | ({} if arguments is None else {"arguments": arguments})
        call = {"type": Raw(_FUNCTION), **call}
    _check_name(function)
    return {**call, "function": Raw(_ENCODE(function))}


def _tool(entry: dict[str, Raw]) -> dict[str, Raw]:
    tool = _without_null(entry)
    function = _function_in(tool)
    if function is None:
        parameters = next((tool.pop(name) for name in _PARAMETERS if name in tool), None)
        if parameters is None:
            # A list of things with names need not be one of tools.
            raise NoCalls("a tool has no parameters")
        if bytes(tool.get("type", b"")) == _FUNCTION:
            # OpenAI's newer API writes the type beside the name.
            del tool["type"]
        tool, function = {"type": Raw(_FUNCTION)}, {**tool, "parameters": parameters}
    _check_name(function)
    return {**tool, "function": Raw(_ENCODE(function))}


def _function_in(entry: dict[str, Raw]) -> dict[str, Raw] | None:
    """The object under ``function``; None where there is none."""
    raw = entry.get("function")
    if raw is None or not bytes(raw).startswith(b"{"):
        return None
    return _without_null(_DECODE_OBJECT(raw))


def _check_name(function: dict[str, Raw]) -> None:
    name = function.get("name")
    if name is None or not bytes(name).startswith(b'"') or not _DECODE_TEXT(name).strip():
        raise NoCalls("a function has no name")


def _without_null(entry: dict[str, Raw]) -> dict[str, Raw]:
    """The object without its nulls, which tables write for fields that an entry does not have."""
    return {name: raw for name, raw in entry.items() if bytes(raw) != _NULL}


def _compact(entries: list[dict[str, Raw]]) -> str:
    """The entries as JSON without white space, numbers and escapes as they were written."""
    text = msgspec.json.format(_ENCODE(entries), indent=-1).decode()
    try:
        _: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or a depth, that only one of the two libraries reads.
        raise NoCalls(str(error)) from error
    return text
