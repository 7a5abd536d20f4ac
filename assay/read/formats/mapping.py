"""What a person may map, and which mapping makes a row readable that no format fits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.core.schema import ROLES
from assay.core.text import did_you_mean
from assay.read.formats.names import INSIDE_MESSAGES, Names, plain
from assay.read.formats.prompts import PROMPT_FIELDS, prompt_field
from assay.read.formats.reader import RowReader
from assay.read.formats.reading import Format, MissingField, Row, Unreadable, kind_of

#: Fields that are named in a reason. A row may have hundreds.
_FIELDS_NAMED = 12
#: Mappings that are tried on a row before none is suggested.
_MOST_TRIED = 24
#: Shapes of rows whose mapping is kept; rows of further shapes get none.
_SHAPES_KEPT = 256
#: How near a format is of which all fields are there and one holds something else.
_SHARE_OF_A_WRONG_VALUE = 0.6


def parse_names(fields: Sequence[str], speakers: Sequence[str], known: Collection[str]) -> Names:
    """The names that ``--map`` and ``--map-role`` give; UserMistake where one is not ``NAME=KNOWN_NAME``."""
    mapped = _parsed("--map", "'problem=prompt'", fields)
    for name, meant in mapped.items():
        if meant not in known and meant not in INSIDE_MESSAGES:
            raise UserMistake(
                f"--map '{name}={meant}': nothing is read from {meant!r}{did_you_mean(meant, known)}"
            )
    twice = [meant for meant, count in Counter(mapped.values()).items() if count > 1]
    if twice:
        both = " and ".join(repr(name) for name, meant in mapped.items() if meant == twice[0])
        raise UserMistake(f"--map: {both} are mapped to {twice[0]!r}; one field is one thing")
    roles = _parsed("--map-role", "'customer=user'", speakers)
    for name, role in roles.items():
        if role not in ROLES:
            there_are = f"{did_you_mean(role, ROLES)} (there are {', '.join(ROLES)})"
            raise UserMistake(f"--map-role '{name}={role}': there is no role {role!r}{there_are}")
    return Names(mapped, {name.lower(): role for name, role in roles.items()})


def _parsed(option: str, example: str, given: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in given:
        name, _, meant = word.rpartition("=")
        name, meant = name.strip(), meant.strip().lower()
        if not name or not meant:
            raise UserMistake(f"{option} {word!r}: write NAME=KNOWN_NAME, such as {example}")
        if pairs.setdefault(name, meant) != meant:
            raise UserMistake(f"{option}: {name!r} is mapped to {pairs[name]!r} and to {meant!r}")
    return pairs


class Misfits:
    """Finds the reasons why rows cannot be read. A mapping is looked for once for rows that are alike."""

    def __init__(self, reader: RowReader, formats: Mapping[str, Format]) -> None:
        self._reader = reader
        self._formats = formats
        self._mappings: dict[tuple[tuple[str, str], ...], str | None] = {}

    def reason(self, row: Row, *, read_as: str, missing: str) -> str:
        """The reason; it names the format that the row has, or what comes nearest to making it readable."""
        recognised = self._reader.format_of(row)
        if recognised is not None and recognised.name != read_as:
            return f"mixed_formats: {missing!r} is missing: a row of {recognised.name} in a file of {read_as}"
        named = self._reader.named
        formats = tuple(self._formats.values()) if named is None else (named,)
        nearest = _nearest(frozenset(row), formats)
        fault = None if nearest.missing else self._fault_as(row, nearest.format)
        if fault is not None:
            return fault
        has = ", ".join(repr(name) for name in islice(row, _FIELDS_NAMED)) or "no field"
        more = f" and {len(row) - _FIELDS_NAMED:,} more" if len(row) > _FIELDS_NAMED else ""
        mapping = self._mapping_for(row, nearest)
        way_on = f"; to read it, try {mapping}" if mapping else ""
        return f"unknown_schema: {nearest.lack}; the row has {has}{more}{way_on}"

    def _fault_as(self, row: Row, format: Format) -> str | None:
        """What is wrong with a value, where the row is read as that format; None where that does not say."""
        try:
            found = [] if format.read is None else format.read(row, self._reader.names)
        except Unreadable as error:
            return str(error)
        except MissingField:
            return None
        return next((one.problem for one in found if one.problem is not None), None)

    def _mapping_for(self, row: Row, nearest: _Nearest) -> str | None:
        """``--map`` options that make the row readable; None where none are known."""
        shape = tuple((name, kind_of(row, name)) for name in row)
        if shape not in self._mappings:
            if len(self._mappings) >= _SHAPES_KEPT:
                return None
            self._mappings[shape] = _readable_mapping(row, nearest, self._reader, self._formats)
        return self._mappings[shape]


def nearest_format(row: Row, formats: Mapping[str, Format]) -> Format:
    """The format that the row comes nearest to."""
    return _nearest(frozenset(row), tuple(formats.values())).format


class _Nearest(NamedTuple):
    """The format that a row of no format comes nearest to, by the names of its fields."""

    format: Format
    keys: frozenset[str]
    """Fields of the format."""
    missing: frozenset[str]
    """Those that the row lacks; none where what a field holds is of another kind."""
    is_near: bool
    """Whether the row has any of the fields, or a misspelt one."""

    @property
    def lack(self) -> str:
        """What the row lacks, in words."""
        named = ", ".join(map(repr, sorted(self.missing or self.keys)))
        if not self.is_near:
            return "it has no field of any format"
        if self.missing:
            return f"{named} is missing for the nearest format, {self.format.name}"
        there = f"it has the fields of the nearest format, {self.format.name} ({named})"
        return f"{there}, but they hold something else"


@lru_cache(maxsize=1024)
def _nearest(names: frozenset[str], formats: tuple[Format, ...]) -> _Nearest:
    """The format whose fields are nearest to ``names``.

    The nearest has the largest share of its fields present, then the fewest missing, then the most
    misspelt, then the one that is found in the fewest formats, then is the plainest format. One of which
    all fields are present, so that a value is wrong, comes behind those of which most are.
    """
    plainest_first = [(format, keys) for format in reversed(formats) for keys in format.keys]
    users = Counter(name for _, keys in plainest_first for name in keys)

    def misspelt(missing: Collection[str]) -> int:
        return sum(bool(get_close_matches(name, names, cutoff=0.8)) for name in missing)

    def likeness(pair: tuple[Format, frozenset[str]]) -> tuple[float, int, int, float]:
        keys = pair[1]
        missing = keys - names
        share = _SHARE_OF_A_WRONG_VALUE if not missing else 1 - len(missing) / len(keys)
        rarest = max((1 / users[name] for name in keys & names), default=0.0)
        return share, -len(missing), misspelt(missing), rarest

    format, keys = max(plainest_first, key=likeness)
    missing = keys - names
    return _Nearest(format, keys, missing, bool(keys & names or misspelt(missing)))


#: Fields that hold a text which nobody says.
_NO_CONTENT = re.compile(
    r"(?:^|_)(?:id|uuid|url|date|lang|language|model|split|hash|category|ability|dataset|data_source|difficulty"
    r"|domain|level|subset|type)$",
    re.IGNORECASE,
)
_SIDES = ("chosen", "rejected")
#: What people call an answer that is not to be learnt.
_WRONG = re.compile("incorrect|wrong|reject|negative|worse|worst|bad", re.IGNORECASE)
#: What people call a question and its answer, beside the names that are known; the likeliest first.
_LIKE_PROMPT = ("problem", "task", "request", "ask", "user", "human", "source", "text", "title")
_LIKE_RESPONSE = ("final", "solution", "target", "reply", "assistant", "gpt", "result", "label", "answer")


def _readable_mapping(
    row: Row, nearest: _Nearest, reader: RowReader, formats: Mapping[str, Format]
) -> str | None:
    """``--map`` options under which the row can be read; None where no renaming of two fields does it."""
    unknown = [name for name in row if _may_be_content(name, reader.known)]
    if not nearest.missing:
        unknown += [name for name in row if name in nearest.keys and name not in PROMPT_FIELDS]
    lists = [name for name in unknown if kind_of(row, name) == "["]
    texts = [name for name in unknown if kind_of(row, name) in ('"', "[")]
    tried = [mapping for mapping in (_misspelt(unknown, nearest.missing),) if mapping]
    tried += [{name: "messages"} for name in lists]
    questions = _by_likeness(texts, _LIKE_PROMPT)
    answers = [name for name in _by_likeness(texts, _LIKE_RESPONSE) if not _WRONG.search(name)]
    if prompt_field(row) is None:
        tried += [{name: "prompt"} for name in questions]
    elif nearest.missing.isdisjoint(_SIDES):
        # What is beside one side of two is not known to be the better one.
        tried += [{name: "response"} for name in answers]
    tried += [
        {question: "prompt", answer: "response"}
        for question in questions
        for answer in answers
        if answer != question
    ]
    for mapping in islice(tried, _MOST_TRIED):
        names = Names({**reader.names.fields, **mapping}, reader.names.speakers)
        if _is_readable(row, RowReader(formats, names, named=reader.named)):
            return " ".join(f"--map {f'{name}={meant}'!r}" for name, meant in mapping.items())
    return None


def _misspelt(unknown: Sequence[str], missing: Collection[str]) -> dict[str, str]:
    """The unknown fields whose names are like those that are missing → these."""
    likest = {meant: get_close_matches(meant, unknown, n=1, cutoff=0.8) for meant in sorted(missing)}
    return {found[0]: meant for meant, found in likest.items() if found}


def _may_be_content(name: str, known: Collection[str]) -> bool:
    """Whether nothing is read from a field of this name, which is not that of an id either."""
    return plain(name) not in known and not _NO_CONTENT.search(name)


def _is_readable(row: Row, reader: RowReader) -> bool:
    format = reader.named or reader.format_of(row)
    if format is None:
        return False
    try:
        return any(reading.messages and reading.problem is None for reading in reader.readings(row, format))
    except (Unreadable, MissingField):
        return False


def _by_likeness(names: Sequence[str], likely: Sequence[str]) -> list[str]:
    """The names, those that hold a likely word first; else in the row's order."""

    def place(name: str) -> int:
        words = [number for number, word in enumerate(likely) if word in name.lower()]
        return min(words, default=len(likely))

    return sorted(names, key=place)
