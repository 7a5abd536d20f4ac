"""``helpsteer_pairs``: HelpSteer2's and HelpSteer3's preferences, two records per row.

``prompt`` or ``context`` with ``response_1``, ``response_2`` and ``preference_strength`` (or
``overall_preference``): a whole number, negative where the first response is better. Both records have the
label ``quality:{strength}``, as NeMo-Aligner's two adjacent rows do. ``rest`` holds ``"assay_side"``, either
``"chosen"`` or ``"rejected"``; for a tie it is missing.

Policy: a prompt that is a list of messages is kept as given, also with a system message in the middle, an
assistant first, or the same role twice. Empty or null content quarantines only the record of that answer.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from assay.core.labels import label_from_ratings
from assay.read.formats.prompts import messages_in, prompt_field, prompt_of
from assay.read.formats.reading import Format, MissingField, Reading, Row, Unreadable, decoded, rest_of

_ANSWERS = ("response_1", "response_2", "response1", "response2")
_STRENGTHS = ("preference_strength", "overall_preference")
_KEYS = tuple(
    frozenset((asked, *pair, strength))
    for strength in _STRENGTHS
    for pair in (_ANSWERS[:2], _ANSWERS[2:])
    for asked in ("prompt", "context")
)
_DECODE_STRENGTH = msgspec.json.Decoder(int).decode


def read(row: Row) -> list[Reading]:
    """Two readings, in the order of the responses."""
    strength_field = next((name for name in _STRENGTHS if name in row), _STRENGTHS[0])
    strength = decoded(row, strength_field, _DECODE_STRENGTH)
    asked = prompt_field(row)
    if asked is None:
        raise MissingField("prompt")
    prompt = prompt_of(row, asked)
    answers = [name for name in _ANSWERS if name in row]
    if len(answers) != 2:
        raise MissingField(next(name for name in _ANSWERS if name not in row))
    used = prompt.used | {strength_field, *answers}
    label = label_from_ratings({"quality": strength})
    readings: list[Reading] = []
    for field, is_chosen in zip(answers, (strength < 0, strength > 0), strict=True):
        side = Raw(b'"chosen"' if is_chosen else b'"rejected"')
        added = {"assay_side": side} if strength else {}
        try:
            messages = prompt.messages + messages_in(row, field, "assistant")
        except Unreadable as error:
            readings.append(Reading([], problem=str(error)))
            continue
        labels: list[str | None] = [*[None] * (len(messages) - 1), label]
        readings.append(Reading(messages, labels, rest_of(row, used, **added)))
    return readings


def fits(row: Row) -> bool:
    """Always True: the names of the fields are enough."""
    return True


HELPSTEER_PAIRS = Format("helpsteer_pairs", _KEYS, fits, read)
