"""``helpsteer_pairs``: HelpSteer2's and HelpSteer3's preferences, two records per row.

``prompt`` or ``context`` with ``response_1``, ``response_2`` and ``preference_strength`` (or
``overall_preference``): a number, negative where the first response is better. Both records have the
label ``quality:{strength}``, as NeMo-Aligner's two adjacent rows do. ``rest`` holds ``"assay_side"``, either
``"chosen"`` or ``"rejected"``; for a tie it is missing. The strength is carried along too.

Policy: a prompt that is a list of messages is kept as given, also with a system message in the middle, an
assistant first, or the same role twice. Empty or null content quarantines only the record of that answer.
"""

from __future__ import annotations

import msgspec

from assay.core.labels import label_from_ratings
from assay.read.formats.names import Names
from assay.read.formats.prompts import messages_in, prompt_field, prompt_of
from assay.read.formats.reading import Draft, Format, MissingField, Row, Unreadable, decoded
from assay.read.formats.sides import CHOSEN, NO_SIDE, REJECTED

_ANSWERS = ("response_1", "response_2", "response1", "response2")
_STRENGTHS = ("preference_strength", "overall_preference")
_KEYS = tuple(
    frozenset((asked, *pair, strength))
    for strength in _STRENGTHS
    for pair in (_ANSWERS[:2], _ANSWERS[2:])
    for asked in ("prompt", "context")
)
_DECODE_STRENGTH = msgspec.json.Decoder(float).decode


def read(row: Row, names: Names) -> list[Draft]:
    """Two records, in the order of the responses."""
    strength_field = next((name for name in _STRENGTHS if name in row), _STRENGTHS[0])
    strength = decoded(row, strength_field, _DECODE_STRENGTH)
    asked = prompt_field(row)
    if asked is None:
        raise MissingField("prompt")
    prompt = prompt_of(row, asked, names)
    answers = [name for name in _ANSWERS if name in row][:2]
    if len(answers) != 2:
        raise MissingField(next(name for name in _ANSWERS if name not in row))
    used = prompt.used | set(answers)
    label = label_from_ratings({"quality": strength})
    found: list[Draft] = []
    for field, is_chosen in zip(answers, (strength < 0, strength > 0), strict=True):
        try:
            one = prompt.with_answer(messages_in(row, field, "assistant", names))
        except Unreadable as error:
            found.append(Draft([], problem=str(error)))
            continue
        found.append(
            one._replace(
                used=used,
                labels=[*[None] * (len(one.messages) - 1), label],
                given={strength_field: strength},
                added=(CHOSEN if is_chosen else REJECTED) if strength else NO_SIDE,
            )
        )
    return found


def fits(row: Row) -> bool:
    """Always True: the names of the fields are enough."""
    return True


HELPSTEER_PAIRS = Format("helpsteer_pairs", _KEYS, fits, read)
