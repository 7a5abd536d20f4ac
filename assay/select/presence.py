"""Whether any record has the fields and labels that rules name."""

from __future__ import annotations

from itertools import chain

from assay.core.schema import GIVEN
from assay.core.text import nearest
from assay.select.columns import ROW, fields_of
from assay.select.expressions import NamedColumn, ValueKind
from assay.select.frames import Dataset, Frames
from assay.storage.artifacts import read_artifact

#: Fields of so many rows are named where one is missing, and so many of them.
_LOOKED_AT = 100
_MOST_NAMED = 12


class Presence:
    """Looks whether any record has the fields and labels that are named."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._found = {column: 0 for column in data.wanted.columns if column.name.startswith((ROW, GIVEN))}
        self._records = 0

    def add(self, frames: Frames) -> None:
        """Count the values of a piece."""
        self._records += frames.records.height
        for column in self._found:
            frame = frames.turns if column.of_turns else frames.records
            self._found[column] += frame.height - frame[column.measured].null_count()

    def absent(self) -> dict[NamedColumn, str]:
        """A sentence for each that no record has."""
        return {
            column: f"no record of {self._records:,} has `{column}`{self._others(column)}"
            for column, found in self._found.items()
            if not found and self._records
        }

    def notes(self) -> tuple[str, ...]:
        """The sentences."""
        return tuple(self.absent().values())

    def _others(self, column: NamedColumn) -> str:
        if column.name.startswith(GIVEN):
            return self._other_numbers(column)
        names = self._names()
        as_what = "" if column.kind == ValueKind.ANY else f" that is {column.kind}"
        meant = nearest(column.name.removeprefix(ROW), names)
        there = f"; rows have {', '.join(names[:_MOST_NAMED])}" if names else "; rows have no fields"
        return f"{as_what}{there}{f': did you mean row.{meant}?' if meant else ''}"

    def _other_numbers(self, column: NamedColumn) -> str:
        names = self._data.converted.given
        if not names:
            return "; people gave no turn a number"
        meant = nearest(column.name, names)
        there = f"; turns have {', '.join(names[:_MOST_NAMED])}"
        return f"{there}{f': did you mean {meant}?' if meant else ''}"

    def _names(self) -> list[str]:
        """The fields of the first rows."""
        for piece in self._data.converted.pieces:
            rests = (
                read_artifact(piece.records, self._data.home, ["rest"])["rest"].drop_nulls().head(_LOOKED_AT)
            )
            if rests.len():
                return list(dict.fromkeys(chain.from_iterable(map(fields_of, rests))))
        return []
