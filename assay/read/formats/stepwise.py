"""``stepwise``: TRL's stepwise supervision, an answer in steps with a label each.

``{"prompt", "completions": [step, …], "labels": [true, …]}`` with as many labels as steps. The steps are one
answer, joined by line ends, which is the ``step_separator`` that TRL's PRMTrainer has by default
(trl/trainer/prm_config.py). The labels are carried along.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from assay.core.schema import Message
from assay.read.formats.names import Names
from assay.read.formats.prompts import prompt_field, prompt_of
from assay.read.formats.reading import Draft, Format, MissingField, Row, decoded

_SEPARATOR = "\n"
_STEPS, _LABELS = "completions", "labels"
_ASKED = ("prompt", "instruction", "question", "query")

_DECODE_STEPS = msgspec.json.Decoder(list[str]).decode
_DECODE_LABELS = msgspec.json.Decoder(list[Raw]).decode


def read(row: Row, names: Names) -> list[Draft]:
    """One record."""
    asked = prompt_field(row)
    if asked is None:
        raise MissingField("prompt")
    prompt = prompt_of(row, asked, names)
    answer = Message("assistant", _SEPARATOR.join(decoded(row, _STEPS, _DECODE_STEPS)))
    return [Draft([*prompt.messages, answer], prompt.used | {_STEPS}, is_answer=True)]


def fits(row: Row) -> bool:
    """Whether there are as many labels as steps, and all steps are texts."""
    try:
        return 0 < len(_DECODE_STEPS(row[_STEPS])) == len(_DECODE_LABELS(row[_LABELS]))
    except msgspec.DecodeError:
        return False


STEPWISE = Format("stepwise", tuple(frozenset((asked, _STEPS, _LABELS)) for asked in _ASKED), fits, read)
