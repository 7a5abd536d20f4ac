"""Chat formats: each turns a row into records. ``FORMATS`` lists them; ``docs/formats.md`` explains them."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache

from assay.read.formats.conversation import CONVERSATION
from assay.read.formats.helpsteer_pairs import HELPSTEER_PAIRS
from assay.read.formats.instruction import INSTRUCTION
from assay.read.formats.messages import MESSAGES
from assay.read.formats.oasst_messages import OASST_MESSAGES
from assay.read.formats.oasst_trees import OASST_TREES
from assay.read.formats.preference import PREFERENCE
from assay.read.formats.reading import (
    Format,
    MissingField,
    PlacedReading,
    Reading,
    Row,
    Unreadable,
    row_of,
)
from assay.read.formats.responses import RESPONSES
from assay.read.formats.sharegpt import SHAREGPT
from assay.read.formats.steerlm_rows import STEERLM

__all__ = [
    "FORMATS",
    "Format",
    "MissingField",
    "PlacedReading",
    "Reading",
    "Row",
    "Unreadable",
    "misfit",
    "nearest_format",
    "recognised_format",
    "row_of",
]

#: All formats by name. A row is tried in this order, so the more specific formats come first.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        OASST_TREES,
        OASST_MESSAGES,
        PREFERENCE,
        HELPSTEER_PAIRS,
        STEERLM,
        SHAREGPT,
        CONVERSATION,
        MESSAGES,
        RESPONSES,
        INSTRUCTION,
    )
}


def recognised_format(row: Row) -> str | None:
    """The name of the format that the row has; None if it has none."""
    for format in FORMATS.values():
        if any(keys <= row.keys() for keys in format.keys) and format.fits(row):
            return format.name
    return None


def nearest_format(row: Row) -> Format:
    """The format that the row comes nearest to."""
    return _nearest(frozenset(row))[0]


@lru_cache(maxsize=1024)
def _nearest(names: frozenset[str]) -> tuple[Format, frozenset[str]]:
    """The format whose fields are nearest to ``names``, and its fields that are missing.

    The nearest has the largest share of its fields present, then the fewest missing, then the most
    misspelt, then is the plainest format.
    """

    def likeness(pair: tuple[Format, frozenset[str]]) -> tuple[float, int, int]:
        missing = pair[1] - names
        misspelt = sum(bool(get_close_matches(name, names, cutoff=0.8)) for name in missing)
        return 1 - len(missing) / len(pair[1]), -len(missing), misspelt

    plainest_first = [(format, keys) for format in reversed(FORMATS.values()) for keys in format.keys]
    format, keys = max(plainest_first, key=likeness)
    return format, keys - names


def misfit(row: Row, *, read_as: str, missing: str) -> str:
    """The reason why a row cannot be read as the file's format; it names the nearest format."""
    recognised = recognised_format(row)
    if recognised is not None and recognised != read_as:
        return f"mixed_formats: {missing!r} is missing: a row of {recognised} in a file of {read_as}"
    nearest, lacking = _nearest(frozenset(row))
    named = ", ".join(repr(name) for name in sorted(lacking)) or repr(missing)
    return f"unknown_schema: {named} is missing for the nearest format, {nearest.name}"
