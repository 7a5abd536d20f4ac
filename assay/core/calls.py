"""Calls of tools, and tools, as JSON text: how a chat template is given them."""

from __future__ import annotations

import json
import re
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""JSON's types, as Python's ``json`` reads them."""

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def shown_calls(tool_calls: str) -> str:
    """The calls as chat templates take them: arguments that are a text of an object are that object.

    OpenAI writes arguments as a text. Templates put them through ``tojson``, which would quote that text once
    more; transformers' documentation asks for an object, and vLLM makes one as well. A text that holds no
    object stays as it is. The result is compact JSON, its keys in the order of the input.

    >>> shown_calls('[{"function": {"name": "add", "arguments": "{\\\\"a\\\\": 1}"}}]')
    '[{"function":{"name":"add","arguments":{"a":1}}}]'
    """
    calls: Json = json.loads(tool_calls)
    return compact([_shown(call) for call in calls] if isinstance(calls, list) else calls)


def shown_tools(tools: str) -> str:
    """The tools as chat templates take them: the same JSON, however its text was written.

    >>> shown_tools('[ {"type": "\\u0066unction"} ]')
    '[{"type":"function"}]'
    """
    return compact(json.loads(tools))


def _shown(call: Json) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    return {**call, "function": {**function, "arguments": _object_in(arguments)}}


def sent_calls(tool_calls: str) -> Json:
    """The calls as OpenAI's protocol takes them: arguments are a text.

    >>> sent_calls('[{"function": {"name": "add", "arguments": {"a": 1}}}]')
    [{'function': {'name': 'add', 'arguments': '{"a":1}'}}]
    """
    calls: Json = json.loads(tool_calls)
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and not isinstance(function.get("arguments"), str):
            function["arguments"] = compact(function.get("arguments") or {})
    return calls


def compact(value: Json) -> str:
    """The value as JSON without white space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_tojson(text: str) -> str:
    """The JSON text as transformers' ``tojson`` writes its value, but with every digit as it was written.

    A template that prints arguments as they are then shows what another shows of the object.

    >>> as_tojson('{"port":"Zo\\\\u00eb","depth":1.10}')
    '{"port": "Zoë", "depth": 1.10}'
    """
    return "".join([_as_tojson(token) for token in _TOKENS.findall(text)])


def _as_tojson(token: str) -> str:
    if token in {",", ":"}:
        return f"{token} "
    if "\\" not in token:
        return token
    return json.dumps(json.loads(token), ensure_ascii=False)


def _object_in(text: str) -> Json:
    """The object that the text holds; the text where it holds none."""
    try:
        found: Json = json.loads(text, parse_constant=_refuse)
        # Half a surrogate pair, which an escape may hide, can be in no text that a model is shown.
        compact(found).encode()
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def names_of(functions: str) -> list[str]:
    """The functions' names in calls, or in tools.

    >>> names_of('[{"type": "function", "function": {"name": "add"}}]')
    ['add']
    """
    found: Json = json.loads(functions)
    entries = (
        [one["function"] for one in found if isinstance(one, dict) and "function" in one]
        if (isinstance(found, list))
        else []
    )
    return [str(one["name"]) for one in entries if isinstance(one, dict) and "name" in one]
