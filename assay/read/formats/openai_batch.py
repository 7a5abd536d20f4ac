"""``openai_batch``: the lines of OpenAI's Batch API, requests and outputs.

An output is ``{"custom_id", "response": {"body": {"choices": [{"message"}, …]}}, "error"}``. It does not
hold the question, which stands in the request of the same ``custom_id``. So it is read where the row also has
the request: its ``body``, or ``request``, or ``messages`` beside it. Else it is refused: no answer is rated
without its question. There is one record per choice. A request alone holds no answer, and is dropped.

Those of ``/v1/responses`` have ``output`` in place of ``choices``, and ``input`` and ``instructions`` in the
request.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from assay.core.schema import Message
from assay.read.formats.answers import answers_in
from assay.read.formats.names import Names
from assay.read.formats.prompts import messages_in
from assay.read.formats.reading import Draft, Format, Row, Unreadable, decoded, kind_of
from assay.read.formats.row_tools import with_tools
from assay.read.formats.tools import TOOL_FIELDS

_NO_QUESTION = (
    "missing_prompt: an output of OpenAI's Batch API holds answers without their questions; add the body of "
    "the request with the same custom_id to the row, as 'body' or 'messages'"
)
_KEYS = (frozenset({"custom_id", "response"}), frozenset({"custom_id", "body"}))
_DECODE_ROW = msgspec.json.Decoder(Row).decode
_DECODE_ITEMS = msgspec.json.Decoder(list[Row]).decode
_ENCODE = msgspec.json.Encoder().encode


def read(row: Row, names: Names) -> list[Draft]:
    """One record per choice of the output; without an output, the request."""
    asked, used = _asked(row, names)
    request = _request(row)
    fields = [name for name in TOOL_FIELDS if name in request]
    return [with_tools(one, request, fields, keep=True) for one in _drafts(row, asked, used, names)]


def _drafts(row: Row, asked: list[Message], used: frozenset[str], names: Names) -> list[Draft]:
    if kind_of(row, "response") != "{":
        return [Draft(asked, used)]
    response = _object(row, "response")
    body = _object(response, "body") if kind_of(response, "body") == "{" else {}
    if not body.keys() & {"choices", "output"}:
        return [Draft([], problem="no_answer: the request failed, as 'response' and 'error' say")]
    if not asked:
        return [Draft([], problem=_NO_QUESTION)]
    others = {name: value for name, value in body.items() if name not in ("choices", "output")}
    if kind_of(body, "output") == "[" and (unspoken := _items(body, spoken=False)):
        others["output"] = Raw(_ENCODE(unspoken))
    added = {"assay_reply": Raw(_ENCODE({**response, "body": others}))}
    used = used | {"response"}
    if kind_of(body, "choices") == "[":
        return [
            Draft(
                asked + one.messages,
                used,
                added={**added, **one.added},
                is_answer=True,
                problem=one.problem,
            )
            for one in answers_in(body, "choices", names)
        ]
    return [Draft(asked + _output(body, names), used, added=added, is_answer=True)]


def _asked(row: Row, names: Names) -> tuple[list[Message], frozenset[str]]:
    """The messages of the request, which is carried along unless it is ``messages`` beside the output."""
    if kind_of(row, "messages") == "[":
        return messages_in(row, "messages", "user", names), frozenset({"messages"})
    request = _request(row)
    asked: list[Message] = []
    if kind_of(request, "instructions") == '"':
        asked += messages_in(request, "instructions", "system", names)
    for field in ("messages", "input"):
        if kind_of(request, field) in ('"', "["):
            return asked + messages_in(request, field, "user", names), frozenset()
    return [], frozenset()


def _request(row: Row) -> Row:
    """The body of the request; empty where the row holds none."""
    for name in ("body", "request"):
        if kind_of(row, name) == "{":
            request = _object(row, name)
            if kind_of(request, "body") == "{":
                request = _object(request, "body")
            if kind_of(request, "messages") in ('"', "[") or kind_of(request, "input") in ('"', "["):
                return request
    return {}


def _output(body: Row, names: Names) -> list[Message]:
    """The messages among the items of a reply of ``/v1/responses``."""
    if kind_of(body, "output") != "[":
        raise Unreadable("no_answer: neither 'choices' nor 'output' of the reply is a list")
    texts = _items(body, spoken=True)
    if not texts:
        raise Unreadable("no_answer: the reply holds no message")
    holder = {"output": Raw(_ENCODE(texts))}
    return messages_in(holder, "output", "assistant", names)


def _items(body: Row, *, spoken: bool) -> list[Row]:
    """The items of a reply of ``/v1/responses`` that are messages, or those that are not."""
    items = decoded(body, "output", _DECODE_ITEMS)
    return [item for item in items if (kind_of(item, "content") == "[" and "role" in item) == spoken]


def _object(row: Row, field: str) -> Row:
    return _DECODE_ROW(row[field])


def fits(row: Row) -> bool:
    """Whether the reply or the request is an object."""
    return kind_of(row, "response") == "{" or kind_of(row, "body") == "{"


OPENAI_BATCH = Format("openai_batch", _KEYS, fits, read, beside=frozenset({"request", "error"}))
