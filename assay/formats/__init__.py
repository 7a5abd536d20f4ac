"""Chat formats: a row in, records out. ``FORMATS`` lists them all, and ``docs/formats.md`` explains them."""

from __future__ import annotations

from assay.formats.messages import MESSAGES
from assay.formats.reading import (
    Format,
    MissingField,
    PlacedReading,
    Reading,
    Row,
    Unreadable,
    row_of,
)
from assay.formats.sharegpt import SHAREGPT

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

#: By name, in the order in which a row is tried: what is more special comes first.
FORMATS: dict[str, Format] = {format.name: format for format in (SHAREGPT, MESSAGES)}


def recognised_format(row: Row) -> str | None:
    """The name of the format that the row has, None if it has none."""
    for format in FORMATS.values():
        if any(keys <= row.keys() for keys in format.keys) and format.fits(row):
            return format.name
    return None


def nearest_format(row: Row) -> Format:
    """The format of which the row has most, for one that has none whole."""

    def likeness(format: Format) -> tuple[float, int]:
        return max((len(keys & row.keys()) / len(keys), -len(keys - row.keys())) for keys in format.keys)

    return max(FORMATS.values(), key=likeness)


def misfit(row: Row, *, read_as: str, missing: str) -> str:
    """The reason why a row cannot be read as the file's format, naming what would come nearest."""
    recognised = recognised_format(row)
    if recognised is not None and recognised != read_as:
        return f"mixed_formats: {missing!r} is missing: a row of {recognised} in a file of {read_as}"
    nearest = nearest_format(row)
    keys = min(nearest.keys, key=lambda keys: len(keys - row.keys()))
    lacking = ", ".join(repr(name) for name in sorted(keys - row.keys())) or repr(missing)
    return f"unknown_schema: the nearest format is {nearest.name}, which needs {lacking}"
