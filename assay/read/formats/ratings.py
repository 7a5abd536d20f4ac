"""Numbers that people gave an answer, and the names that they stand under."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from msgspec import Raw

from assay.core.schema import ATTRIBUTES

#: What candidates are rated with, beside the attributes of HelpSteer and OpenAssistant.
RATINGS = frozenset({*ATTRIBUTES, "score", "rating", "overall_score", "reward", "rank"})

_NUMBER = re.compile(rb"-?\d{1,9}(?:\.\d{1,30})?(?:[eE][-+]?\d{1,2})?")


def number_in(value: Raw) -> float | None:
    """The number; None where the value is no number that a person gives.

    >>> number_in(Raw(b"3.5")), number_in(Raw(b'"3.5"')), number_in(Raw(b"null"))
    (3.5, None, None)
    """
    text = bytes(value)
    if _NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def given_in(fields: Mapping[str, Raw], named: Collection[str]) -> dict[str, float]:
    """The numbers under the given names."""
    return {
        name: number for name in fields if name in named and (number := number_in(fields[name])) is not None
    }
