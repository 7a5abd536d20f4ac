"""A row → its records: which format it has, under which names, and what all formats have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec
from msgspec import Raw

from assay.read.formats.beside import (
    BESIDE_FIELDS,
    NOTHING_BESIDE,
    TEMPLATE_FIELD,
    THOUGHT_FIELDS,
    Beside,
    reading_of,
    with_beside,
)
from assay.read.formats.names import KNOWN_NAMES, Names, plain
from assay.read.formats.reading import (
    Alone,
    Format,
    MissingField,
    More,
    PatchedRow,
    Reading,
    Row,
    kind_of,
    on_one_line,
)
from assay.read.formats.renaming import renamed_fields, under_known_names
from assay.read.formats.tools import TOOL_FIELDS

#: Fields that hold a list or an object, so that a text in them is JSON inside JSON, as in a CSV file.
_STRUCTURED = frozenset(
    {"messages", "conversations", "conversation", "conversation_a", "conversation_b", "trajectory"}
    | {"context_messages", "chosen_messages", "rejected_messages", "responses", "completions", "generations"}
    | {"all_generated_responses", "answers", "history", TEMPLATE_FIELD}
)
#: Shapes are forgotten at this many, for rows whose fields never repeat.
_MOST_SHAPES = 4096
_NULL, _QUOTE = b'n"'

_NOTHING: Row = {}
_NO_NAMES: Mapping[str, str] = {}

_DECODE_TEXT = msgspec.json.Decoder(str).decode
_DECODE_RAW = msgspec.json.Decoder(Raw).decode


class _Shape(NamedTuple):
    """What the names of a row's fields say, whatever is in them."""

    formats: tuple[Format, ...]
    """The formats that the row may have, the likeliest first."""
    watched: tuple[str, ...]
    """Fields in which null means that the row has no such field."""
    structured: tuple[str, ...]
    """Fields in which a text may be JSON."""
    beside: Beside
    alone: Alone | None
    """The short way, where no format looks at another field than the one with the conversation."""
    renamed: Mapping[str, str]
    """Fields of the input that are read under another name → that name."""


class _View(NamedTuple):
    """A row as its format reads it."""

    row: Row
    shape: _Shape
    originals: Mapping[str, str] = _NO_NAMES
    """Name in ``row`` → name in the input, where they differ."""
    carried: Row = _NOTHING
    """Fields, by their names in the input, that the format does not see and that are carried along."""


class RowReader:
    """Reads rows under the names that a run maps, each as the format that it has, or as one that is named."""

    def __init__(
        self, formats: Mapping[str, Format], names: Names = KNOWN_NAMES, *, named: Format | None = None
    ) -> None:
        self._formats = formats
        self._names = names
        self._named = named
        self._keys = frozenset(chain.from_iterable(keys for one in formats.values() for keys in one.keys))
        self._known = self._keys | BESIDE_FIELDS | {TEMPLATE_FIELD, *TOOL_FIELDS, *THOUGHT_FIELDS}
        self._known |= frozenset(chain.from_iterable(one.beside for one in formats.values()))
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    @property
    def names(self) -> Names:
        """The names that the user maps."""
        return self._names

    @property
    def named(self) -> Format | None:
        """The format of all rows, where the user names one."""
        return self._named

    @property
    def known(self) -> frozenset[str]:
        """All fields that some format looks at."""
        return self._known

    def formats_of(self, fields: Sequence[str]) -> list[str]:
        """Names of the formats that a row with these fields may have, whatever is in them."""
        found = self._shape_of(tuple(fields)).formats
        return [one.name for one in self._formats.values() if any(one.read is each.read for each in found)]

    def format_of(self, row: Row) -> Format | None:
        """The format that the row has; None if it has none."""
        view = self._view(row)
        found = _recognised(view)
        if found is None:
            return None
        # Formats that are read alike differ in what people call them.
        alike = (one for one in self._formats.values() if one.read is found.read and one.fits(view.row))
        return found if found.read is None else next(alike)

    def readings(self, row: Row, fallback: Format) -> list[Reading]:
        """The row's records. A row of no format is read as ``fallback``, which says what is missing.

        Unreadable and MissingField as the format raises them; MissingField also for a format that is not read
        row by row.
        """
        shape = self._shapes.get(tuple(row))
        alone = None if shape is None or type(row) is not dict else shape.alone
        if alone is not None and (messages := alone.texts(row, self._names)) is not None:
            others = row.copy()
            del others[alone.field]
            return [Reading(messages, None, on_one_line(others))]
        view = self._view(row)
        format = self._named or _recognised(view) or fallback
        if format.read is None:
            raise MissingField(min(format.keys[0] - view.row.keys(), default="message_id"))
        found = format.read(view.row, self._names)
        if view.shape.beside != NOTHING_BESIDE:
            found = with_beside(view.row, view.shape.beside, found, self._names)
        readings = [reading_of(view.row, one, view.originals, view.carried) for one in found]
        if isinstance(row, PatchedRow):
            return [_with_left_out(one, row.patched) for one in readings]
        return readings

    def _view(self, row: Row) -> _View:
        fields = tuple(row)
        shape = self._shapes.get(fields) or self._new_shape(fields)
        if shape.renamed:
            known = under_known_names(row, shape.renamed)
            return self._with_values(_View(known.row, shape, known.originals, known.carried))
        return self._with_values(_View(row, shape))

    def _with_values(self, view: _View) -> _View:
        """The view without null fields, and with texts that are JSON taken for what they hold."""
        row, shape = view.row, view.shape
        for name in shape.watched:
            if memoryview(row[name])[0] == _NULL:
                return self._without_nulls(view)
        for name in shape.structured:
            if memoryview(row[name])[0] == _QUOTE:
                row = {**row, name: _unpacked(row[name])}
        return view if row is view.row else view._replace(row=row)

    def _without_nulls(self, view: _View) -> _View:
        """The view without fields that are null, unless these are what the row lacks for any format.

        What a null means beside the messages is known: nothing. Other nulls are carried along.
        """
        row, originals = view.row, view.originals
        nulls = [name for name in view.shape.watched if kind_of(row, name) == "n"]
        carried = {originals.get(name, name): row[name] for name in nulls if name not in BESIDE_FIELDS}
        kept = {name: value for name, value in row.items() if name not in nulls}
        shape = self._shape_of(tuple(kept))
        # Where a null had the known name, a field in another case may have it now.
        known = under_known_names(kept, shape.renamed)
        carried |= {originals.get(name, name): value for name, value in known.carried.items()}
        originals = {**originals, **{name: originals.get(was, was) for name, was in known.originals.items()}}
        seen = self._with_values(_View(known.row, shape, originals, {**view.carried, **carried}))
        if self._named is None:
            is_read = _recognised(seen) is not None
        else:
            is_read = any(keys <= seen.row.keys() for keys in self._named.keys)
        return seen if is_read else view

    def _shape_of(self, fields: tuple[str, ...]) -> _Shape:
        return self._shapes.get(fields) or self._new_shape(fields)

    def _new_shape(self, fields: tuple[str, ...]) -> _Shape:
        renamed = renamed_fields(fields, self._names, self._known)
        ordered = tuple(dict.fromkeys(renamed.get(name, name) for name in fields))
        names = frozenset(ordered)
        formats: list[Format] = []
        for format in self._formats.values():
            if any(keys <= names for keys in format.keys):
                # The last of those that are read alike fits whatever the others fit.
                formats = [one for one in formats if one.read is not format.read or one.read is None]
                formats.append(format)
        beside = Beside.of(names)
        shape = _Shape(
            tuple(formats),
            tuple(name for name in ordered if name in self._keys or name in BESIDE_FIELDS),
            tuple(name for name in ordered if name in _STRUCTURED),
            beside,
            self._alone(fields, formats) if beside == NOTHING_BESIDE else None,
            renamed,
        )
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        self._shapes[fields] = shape
        return shape

    def _alone(self, fields: tuple[str, ...], formats: Sequence[Format]) -> Alone | None:
        alone = formats[0].alone if len(formats) == 1 else None
        looked_at = [name for name in fields if name in self._known or plain(name) in self._known]
        if alone is None or looked_at != [alone.field] or self._names.fields:
            return None
        return alone if self._named in (None, *formats) else None


def _with_left_out(reading: Reading, names: Collection[str]) -> Reading:
    more = reading.more or More()
    return reading._replace(more=more._replace(left_out={*more.left_out, *names}))


def _recognised(view: _View) -> Format | None:
    """The format of a row; of those that are read alike, one."""
    row = view.row
    for format in view.shape.formats:
        if format.fits(row):
            return format
    return None


def _unpacked(value: Raw) -> Raw:
    """The JSON that a text holds; the text where it holds none."""
    text = _DECODE_TEXT(value).strip()
    if not text.startswith(("[", "{")):
        return value
    try:
        return Raw(bytes(_DECODE_RAW(text)))
    except (msgspec.DecodeError, RecursionError):
        return value
