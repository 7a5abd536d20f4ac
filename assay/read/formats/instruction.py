"""``instruction``: one question and one answer in two fields.

``instruction``, ``prompt``, ``question``, ``query`` or ``input`` with ``response``, ``output``,
``completion``, ``answer`` or ``generation``: Alpaca, Dolly, HelpSteer, distilabel and similar. A field may
hold a list of messages instead of a text. Alpaca's ``input`` or Dolly's ``context``, if not blank, follows a
question that is a text, after an empty line. LLaMA-Factory's ``history`` goes before an ``instruction``.
``system`` or ``system_prompt``, if not blank, is the system message.

Whole numbers under the names of ``ATTRIBUTES`` are the answer's label, in NeMo-Aligner's order, be it
all of HelpSteer's five or helpfulness alone; other values under these names are carried along.
HelpSteer2's prompts of several turns keep their ``<extra_id_1>`` inside one message, as NeMo-Aligner
leaves them.

Policy: prompts and answers that are lists of messages are kept as given, also with a system message in the
middle, an assistant first, or the same role twice. Empty or null content is quarantined.
"""

from __future__ import annotations

import re

from assay.core.labels import label_from_ratings
from assay.core.schema import ATTRIBUTES
from assay.read.formats.prompts import messages_in, prompt_of
from assay.read.formats.reading import Format, MissingField, Reading, Row, kind_of, rest_of

_ASKED = ("instruction", "prompt", "question", "query", "input")
_ANSWERED = ("response", "output", "completion", "answer", "generation")
_FIELDS = tuple((asked, answered) for asked in _ASKED for answered in _ANSWERED)
_KEYS = tuple(frozenset(pair) for pair in _FIELDS)
_WHOLE_NUMBER = re.compile(rb"-?[0-9]{1,3}")


def ratings_of(row: Row) -> dict[str, int]:
    """Whole numbers under the names of ``ATTRIBUTES``."""
    return {
        name: int(value)
        for name in ATTRIBUTES
        if name in row and _WHOLE_NUMBER.fullmatch(value := bytes(row[name]))
    }


def read(row: Row) -> list[Reading]:
    """One reading."""
    for asked, answered in _FIELDS:
        if asked in row and answered in row:
            break
    else:
        raise MissingField(next((answered for asked, answered in _FIELDS if asked in row), "instruction"))
    prompt = prompt_of(row, asked)
    messages = prompt.messages + messages_in(row, answered, "assistant")
    used = prompt.used | {answered}
    labels: list[str | None] | None = None
    ratings = ratings_of(row)
    if ratings and messages[-1].role == "assistant":
        used |= ratings.keys()
        labels = [*[None] * (len(messages) - 1), label_from_ratings(ratings)]
    return [Reading(messages, labels, rest_of(row, used))]


def fits(row: Row) -> bool:
    """Whether question and answer are texts, messages or null."""
    return any(
        kind_of(row, asked) in _TEXT_KINDS and kind_of(row, answered) in _TEXT_KINDS
        for asked, answered in _FIELDS
    )


_TEXT_KINDS = frozenset('"[{n')

INSTRUCTION = Format("instruction", _KEYS, fits, read)
