"""Whether a chat template shows tools and calls: it writes conversations of which every word is known.

Templates differ by the kind of conversation. Llama 3.1's, for one, leaves out what an assistant says beside
a call, and DeepSeek's shows a call only where the content is null. So each kind that a record holds is probed
by itself, once a template.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from assay.core.calls import Json, compact, names_of
from assay.core.schema import FullMessage, Message, MessageFields, is_call
from assay.rewards.protocol import Request
from assay.rewards.templates import ChatTemplate, Refused

UNSEEN_TOOLS = "unseen_tools"
UNSEEN_CALLS = "unseen_calls"

_CONTENT = "qcontentz"
_RESULT = "qresultz"
_TOOL_WORDS = ("qtoolz", "qpurposez", "qparameterz")
_CALL_WORDS = (("qfirstz", "qkeyonez", "qvalueonez"), ("qsecondz", "qkeytwoz", "qvaluetwoz"))
#: Mistral's template wants ids of nine letters and digits.
_IDS = ("call00001", "call00002")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a conversation holds tools or a call."""

    tools: bool
    system: bool
    """Whether it begins with a system message."""
    calls: int = 0
    """In one message: none, one, or two for several."""
    says: Literal["text", "nothing", "null", "missing"] = "nothing"
    """What stands beside them."""
    is_last: bool = False
    """Whether the conversation ends with that message."""


def needs_tools(messages: Iterable[Message], tools: str | None) -> bool:
    """Whether a conversation can be shown to no model that knows neither tools nor calls."""
    return tools is not None or any(
        type(message) is not Message and message.fields.tool_calls is not None for message in messages
    )


def why_unseen(template: ChatTemplate, request: Request, count: int, text: str | None) -> str | None:
    """Why the first ``count`` messages, rendered as ``text``, are not what a model has to be shown.

    None where it shows the tools and every call, and also where the request has none. Without ``text`` the
    template refused the messages: a template that knows no calls mostly trips over a content that is null.
    """
    messages = request.messages[:count]
    system = bool(messages) and messages[0].role == "system"
    if request.tools is not None:
        kind = _Kind(True, system)
        if _hidden(template, kind) or (text is not None and not _are_named(request.tools, text)):
            return f"{UNSEEN_TOOLS}: the chat template does not show the tools that the assistant could call"
    for number, message in enumerate(messages, 1):
        if type(message) is Message or message.fields.tool_calls is None:
            continue
        kind = _Kind(
            request.tools is not None,
            system,
            min(2, len(names_of(message.fields.tool_calls))),
            _said(message) if text is not None or not is_call(message) else "nothing",
            number == count,
        )
        hidden = _hidden(template, kind)
        if not hidden and text is not None and not _are_named(message.fields.tool_calls, text):
            hidden = "the calls"
        if hidden:
            return f"{UNSEEN_CALLS}: the chat template does not show {hidden} of message {number} (assistant)"
    return None


def _said(message: Message) -> Literal["text", "nothing", "null", "missing"]:
    if not is_call(message):
        return "text"
    return message.fields.content_is or "nothing"


def _are_named(functions: str, text: str) -> bool:
    """Whether the functions' names stand in the text."""
    return all(name in text or compact(name)[1:-1] in text for name in names_of(functions))


@lru_cache(maxsize=512)
def _hidden(template: ChatTemplate, kind: _Kind) -> str:
    """What the template leaves out of such a conversation; empty where it shows all, or raises."""
    text = template.text(tuple(_conversation(kind)), _tools() if kind.tools else None)
    if isinstance(text, Refused):
        # It is asked again with the record itself, and what it says then is the reason.
        return ""
    written = text.casefold()
    if not kind.calls:
        return "" if all(word in written for word in _TOOL_WORDS) else "the tools"
    words = [word for call in _CALL_WORDS[: kind.calls] for word in call]
    if not all(word in written for word in words):
        return "the calls"
    if kind.says == "text" and _CONTENT not in written:
        return "the text beside the calls"
    return "" if kind.is_last or _RESULT in written else "the results of the calls"


def _conversation(kind: _Kind) -> Iterator[Message]:
    if kind.system:
        yield Message("system", "qsystemz")
    yield Message("user", "qquestionz")
    if kind.calls:
        calls: list[Json] = [_call(place) for place in range(kind.calls)]
        content_is = kind.says if kind.says == "null" or kind.says == "missing" else None
        fields = MessageFields(tool_calls=compact(calls), content_is=content_is)
        yield FullMessage("assistant", _CONTENT if kind.says == "text" else "", fields)
        if kind.is_last:
            return
        for place in range(kind.calls):
            result = MessageFields(tool_call_id=_IDS[place], name=_CALL_WORDS[place][0])
            yield FullMessage("tool", _RESULT, result)
    yield Message("assistant", "qanswerz")


def _call(place: int) -> Json:
    name, argument, value = _CALL_WORDS[place]
    return {"type": "function", "id": _IDS[place], "function": {"name": name, "arguments": {argument: value}}}


def _tools() -> str:
    name, purpose, parameter = _TOOL_WORDS
    parameters: Json = {
        "type": "object",
        "properties": {parameter: {"type": "string", "description": "which"}},
        "required": [parameter],
    }
    function: Json = {"name": name, "description": purpose, "parameters": parameters}
    return compact([{"type": "function", "function": function}])
