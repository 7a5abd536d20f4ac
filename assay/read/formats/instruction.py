"""``instruction``: one question and one answer in two fields.

``instruction``, ``prompt``, ``question``, ``query`` or ``input`` with ``response``, ``output``,
``completion``, ``answer`` or ``generation``: Alpaca, Dolly, HelpSteer, distilabel and similar. A field may
hold a list of messages instead of a text. Alpaca's ``input`` or Dolly's ``context``, if not blank, follows a
question that is a text, after an empty line. LLaMA-Factory's ``history`` goes before an ``instruction``.
``system`` or ``system_prompt``, if not blank, is the system message.

Numbers under the names of ``ATTRIBUTES`` are the answer's label, in NeMo-Aligner's order, be it
all of HelpSteer's five or helpfulness alone; other values under these names are carried along.
HelpSteer2's prompts of several turns are conversations.

Policy: prompts and answers that are lists of messages are kept as given, also with a system message in the
middle, an assistant first, or the same role twice. Empty or null content is quarantined.
"""

from __future__ import annotations

from assay.read.formats.answers import SINGLE, after
from assay.read.formats.names import Names
from assay.read.formats.prompts import prompt_of
from assay.read.formats.reading import Draft, Format, MissingField, Row, kind_of

_ASKED = ("instruction", "prompt", "question", "query", "input", "context_messages", "trajectory", "context")
_FIELDS = tuple((asked, answered) for asked in _ASKED for answered in SINGLE)
_KEYS = tuple(frozenset(pair) for pair in _FIELDS)


def read(row: Row, names: Names) -> list[Draft]:
    """One record."""
    there = [(asked, answered) for asked, answered in _FIELDS if asked in row and answered in row]
    if not there:
        raise MissingField(next((answered for asked, answered in _FIELDS if asked in row), "instruction"))
    asked, answered = next((pair for pair in there if _are_texts(row, *pair)), there[0])
    prompt = prompt_of(row, asked, names)
    return after(row, prompt, answered, names)


def fits(row: Row) -> bool:
    """Whether question and answer are texts, messages or null."""
    return any(_are_texts(row, *pair) for pair in _FIELDS)


def _are_texts(row: Row, asked: str, answered: str) -> bool:
    return kind_of(row, asked) in _TEXT_KINDS and kind_of(row, answered) in _TEXT_KINDS


_TEXT_KINDS = frozenset('"[{n')

INSTRUCTION = Format("instruction", _KEYS, fits, read)
