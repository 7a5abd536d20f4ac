"""``responses``: one prompt and several answers, one record per answer, in their order.

``prompt`` (or ``instruction``, ``question``, ``query``, ``context``) with a list under ``responses``,
``completions``, ``generations`` or ``outputs``. An answer is a text, a list of messages, or an object that
holds one of these under ``response``, ``completion``, ``content``, ``text``, ``output`` or ``generation``;
the object's other fields are carried along as ``assay_response``. The system message is as in
``instruction``. A row without answers is dropped.

Policy: the prompt is kept as given, also with a system message in the middle, an assistant first, or the same
role twice. Empty or null content quarantines only the record of that answer.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from assay.read.formats.prompts import messages_in, prompt_field, prompt_of
from assay.read.formats.reading import (
    Format,
    MissingField,
    Reading,
    Row,
    Unreadable,
    decoded,
    kind_of,
    rest_of,
)

_LISTS = ("responses", "completions", "generations", "outputs")
_ASKED = ("prompt", "instruction", "question", "query", "context")
_TEXTS = ("response", "completion", "content", "text", "output", "generation")
_ROLE_FIELDS = frozenset({"role", "from"})

_DECODE_ANSWERS = msgspec.json.Decoder(list[Raw] | None).decode
_DECODE_ROW = msgspec.json.Decoder(Row).decode
_ENCODE = msgspec.json.Encoder().encode


def read(row: Row) -> list[Reading]:
    """One reading per answer; for a row without answers, one reading without messages."""
    answered = next((name for name in _LISTS if name in row), None)
    if answered is None:
        raise MissingField("responses")
    asked = prompt_field(row)
    if asked is None:
        raise MissingField("prompt")
    prompt = prompt_of(row, asked)
    used = prompt.used | {answered}
    readings: list[Reading] = []
    for answer in decoded(row, answered, _DECODE_ANSWERS) or ():
        added: dict[str, Raw] = {}
        try:
            holder, field = {answered: answer}, answered
            if kind_of(holder, answered) == "{":
                holder, field = _inside(answer)
                others = {name: holder[name] for name in holder if name != field and name not in _ROLE_FIELDS}
                if others:
                    added["assay_response"] = Raw(_ENCODE(others))
            messages = prompt.messages + messages_in(holder, field, "assistant")
            readings.append(Reading(messages, None, rest_of(row, used, **added)))
        except Unreadable as error:
            readings.append(Reading([], problem=str(error)))
    return readings or [Reading([], None, rest_of(row, used))]


def _inside(answer: Raw) -> tuple[Row, str]:
    """An answer's object, and the field that holds its text."""
    holder = _DECODE_ROW(answer)
    for field in _TEXTS:
        if field in holder:
            return holder, field
    raise Unreadable(f"missing_field: an answer has none of {', '.join(_TEXTS)}")


def fits(row: Row) -> bool:
    """Whether the answers are a list."""
    return any(kind_of(row, name) == "[" for name in _LISTS)


RESPONSES = Format(
    "responses", tuple(frozenset((asked, answers)) for answers in _LISTS for asked in _ASKED), fits, read
)
