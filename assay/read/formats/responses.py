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

from assay.read.formats.answers import LISTS, PARALLEL, after, list_field
from assay.read.formats.names import Names
from assay.read.formats.prompts import prompt_field, prompt_of
from assay.read.formats.reading import Draft, Format, MissingField, Row

_ASKED = ("prompt", "instruction", "question", "query", "context_messages", "trajectory", "context", "input")


def read(row: Row, names: Names) -> list[Draft]:
    """One record per answer; for a row without answers, one without messages."""
    answered = list_field(row)
    if answered is None:
        raise MissingField("responses")
    asked = prompt_field(row)
    if asked is None:
        raise MissingField("prompt")
    prompt = prompt_of(row, asked, names)
    found = after(row, prompt, answered, names)
    # A question without answers is no conversation: it is carried along.
    return found or [Draft([], {answered})]


def fits(row: Row) -> bool:
    """Whether there are answers: a list, or one text."""
    return list_field(row) is not None


RESPONSES = Format(
    "responses",
    tuple(frozenset((asked, answers)) for answers in LISTS for asked in _ASKED),
    fits,
    read,
    beside=frozenset(PARALLEL),
)
