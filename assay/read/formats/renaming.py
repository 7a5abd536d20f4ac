"""Fields under the names that formats know: mapped by the user, or written in another case."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from assay.read.formats.names import Names, plain
from assay.read.formats.reading import Row

_NO_NAMES: Mapping[str, str] = {}
_NOTHING: Row = {}


class KnownRow(NamedTuple):
    """A row, or a message of one, under known names."""

    row: Row
    originals: Mapping[str, str] = _NO_NAMES
    """Name in ``row`` → name in the input, where they differ."""
    carried: Row = _NOTHING
    """Fields, by their names in the input, whose known name another field takes."""

    def original(self, name: str) -> str:
        """What the input calls that field of ``row``."""
        return self.originals.get(name, name)


def renamed_fields(fields: Sequence[str], names: Names, known: Collection[str]) -> dict[str, str]:
    """The fields that are read under another name, which is among the ``known`` ones → that name."""
    renamed = {name: meant for name, meant in names.fields.items() if name in fields and meant in known}
    taken = {*fields, *renamed.values()}
    for name in fields:
        meant = plain(name)
        if name not in renamed and name not in known and meant in known and meant not in taken:
            renamed[name] = meant
            taken.add(meant)
    return renamed


def under_known_names(row: Row, renamed: Mapping[str, str]) -> KnownRow:
    """The row with these fields renamed."""
    if not renamed:
        return KnownRow(row)
    meant = set(renamed.values())
    carried = {name: value for name, value in row.items() if name in meant and name not in renamed}
    read = {renamed.get(name, name): value for name, value in row.items() if name not in carried}
    return KnownRow(read, {known: name for name, known in renamed.items()}, carried)


def known_row(row: Row, names: Names, known: Collection[str]) -> KnownRow:
    """The row with those of the ``known`` fields that it has under another name renamed."""
    return under_known_names(row, renamed_fields(tuple(row), names, known))
