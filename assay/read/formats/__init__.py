"""Chat formats: each turns a row into records. ``FORMATS`` lists them; ``docs/formats.md`` explains them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from assay.read.formats.conversation import CONVERSATION
from assay.read.formats.helpsteer_pairs import HELPSTEER_PAIRS
from assay.read.formats.instruction import INSTRUCTION
from assay.read.formats.mapping import Misfits
from assay.read.formats.mapping import nearest_format as _nearest_format
from assay.read.formats.mapping import parse_names as _parse_names
from assay.read.formats.messages import MESSAGES
from assay.read.formats.names import KNOWN_NAMES, Names
from assay.read.formats.nemo_texts import NEMO_TEXTS
from assay.read.formats.oasst_messages import OASST_MESSAGES
from assay.read.formats.oasst_trees import OASST_TREES
from assay.read.formats.openai_batch import OPENAI_BATCH
from assay.read.formats.pairs import PAIRS
from assay.read.formats.preference import PREFERENCE
from assay.read.formats.reader import RowReader
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
from assay.read.formats.stepwise import STEPWISE

__all__ = [
    "FORMATS",
    "KNOWN_NAMES",
    "Format",
    "Misfits",
    "MissingField",
    "Names",
    "PlacedReading",
    "Reading",
    "Row",
    "Unreadable",
    "nearest_format",
    "parse_names",
    "recognised_format",
    "row_of",
    "row_reader",
]

#: All formats by name. A row is tried in this order, so the more specific formats come first.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        OASST_TREES,
        OASST_MESSAGES,
        NEMO_TEXTS,
        OPENAI_BATCH,
        PREFERENCE,
        HELPSTEER_PAIRS,
        PAIRS,
        STEERLM,
        SHAREGPT,
        CONVERSATION,
        MESSAGES,
        STEPWISE,
        RESPONSES,
        INSTRUCTION,
    )
}


def row_reader(names: Names = KNOWN_NAMES, *, named: str | None = None) -> RowReader:
    """A reader of rows, each as the format that it has, or all as the one that is ``named``."""
    return RowReader(FORMATS, names, named=None if named is None else FORMATS[named])


@cache
def _plain_reader() -> RowReader:
    return row_reader()


def recognised_format(row: Row, reader: RowReader | None = None) -> str | None:
    """The name of the format that the row has; None if it has none."""
    found = (reader or _plain_reader()).format_of(row)
    return None if found is None else found.name


def nearest_format(row: Row) -> Format:
    """The format that the row comes nearest to."""
    return _nearest_format(row, FORMATS)


def parse_names(fields: Sequence[str], speakers: Sequence[str]) -> Names:
    """The names that ``--map`` and ``--map-role`` give; UserMistake where one is not ``NAME=KNOWN_NAME``."""
    return _parse_names(fields, speakers, _plain_reader().known)
