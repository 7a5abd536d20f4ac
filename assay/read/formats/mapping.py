"""What a person may map, and which mapping makes a row readable that no format fits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice

from assay.core.errors import UserMistake
from assay.core.schema import ROLES
from assay.core.text import did_you_mean
from assay.read.formats.names import INSIDE_MESSAGES, Names, plain
from assay.read.formats.prompts import prompt_field
from assay.read.formats.reader import RowReader
from assay.read.formats.reading import Format, MissingField, Row, Unreadable, kind_of

#: Fields that are named in a reason. A row may have hundreds.
_FIELDS_NAMED = 12
#: Mappings that are tried on a row before none is suggested.
_MOST_TRIED = 24
#: Shapes of rows whose advice is kept; rows of further shapes get none.
_SHAPES_KEPT = 256


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
    """Finds the reasons why rows cannot be read. Rows alike get the same advice, which is looked for once."""

    def __init__(self, reader: RowReader, formats: Mapping[str, Format]) -> None:
        self._reader = reader
        self._formats = formats
        self._advice: dict[tuple[tuple[str, str], ...], str | None] = {}

    def reason(self, row: Row, *, read_as: str, missing: str) -> str:
        """The reason; it names the format that the row has, or what comes nearest to making it readable."""
        recognised = self._reader.format_of(row)
        if recognised is not None and recognised.name != read_as:
            return f"mixed_formats: {missing!r} is missing: a row of {recognised.name} in a file of {read_as}"
        nearest, lacking = _nearest(frozenset(row), tuple(self._formats.values()))
        named = ", ".join(repr(name) for name in sorted(lacking)) or repr(missing)
        has = ", ".join(repr(name) for name in islice(row, _FIELDS_NAMED)) or "no field"
        more = f" and {len(row) - _FIELDS_NAMED:,} more" if len(row) > _FIELDS_NAMED else ""
        advice = self._advice_on(row)
        way_on = f"; to read it, try {advice}" if advice else ""
        return (
            f"unknown_schema: {named} is missing for the nearest format, {nearest.name}; "
            f"the row has {has}{more}{way_on}"
        )

    def _advice_on(self, row: Row) -> str | None:
        shape = tuple((name, kind_of(row, name)) for name in row)
        if shape not in self._advice:
            if len(self._advice) >= _SHAPES_KEPT:
                return None
            self._advice[shape] = _advice(row, self._reader.names, self._formats, self._reader.known)
        return self._advice[shape]


def nearest_format(row: Row, formats: Mapping[str, Format]) -> Format:
    """The format that the row comes nearest to."""
    return _nearest(frozenset(row), tuple(formats.values()))[0]


@lru_cache(maxsize=1024)
def _nearest(names: frozenset[str], formats: tuple[Format, ...]) -> tuple[Format, frozenset[str]]:
    """The format whose fields are nearest to ``names``, and its fields that are missing.

    The nearest has the largest share of its fields present, then the fewest missing, then the most
    misspelt, then is the plainest format.
    """

    def likeness(pair: tuple[Format, frozenset[str]]) -> tuple[float, int, int]:
        missing = pair[1] - names
        misspelt = sum(bool(get_close_matches(name, names, cutoff=0.8)) for name in missing)
        return 1 - len(missing) / len(pair[1]), -len(missing), misspelt

    plainest_first = [(format, keys) for format in reversed(formats) for keys in format.keys]
    format, keys = max(plainest_first, key=likeness)
    return format, keys - names


#: Fields that hold a text which nobody says.
_NO_CONTENT = re.compile(
    r"(?:^|_)(?:id|uuid|url|date|lang|language|model|split|hash|category)$", re.IGNORECASE
)
#: What people call a question and its answer, beside the names that are known; the likeliest first.
_LIKE_PROMPT = ("problem", "task", "request", "ask", "user", "human", "source", "text", "title")
_LIKE_RESPONSE = ("final", "solution", "target", "reply", "assistant", "gpt", "result", "label", "answer")


def _advice(row: Row, names: Names, formats: Mapping[str, Format], known: Collection[str]) -> str | None:
    """``--map`` options under which the row can be read; None where no renaming of two fields does it."""
    unknown = [name for name in row if _may_be_content(name, known)]
    lists = [name for name in unknown if kind_of(row, name) == "["]
    texts = [name for name in unknown if kind_of(row, name) in ('"', "[")]
    tried = [{name: "messages"} for name in lists]
    if prompt_field(row) is not None:
        tried += [{name: "response"} for name in _by_likeness(texts, _LIKE_RESPONSE)]
    tried += [
        {question: "prompt", answer: "response"}
        for question in _by_likeness(texts, _LIKE_PROMPT)
        for answer in _by_likeness([name for name in texts if name != question], _LIKE_RESPONSE)
    ]
    for mapping in islice(tried, _MOST_TRIED):
        reader = RowReader(formats, Names({**names.fields, **mapping}, names.speakers))
        if _is_readable(row, reader):
            return " ".join(f"--map {f'{name}={meant}'!r}" for name, meant in mapping.items())
    return None


def _may_be_content(name: str, known: Collection[str]) -> bool:
    """Whether nothing is read from a field of this name, which is not that of an id either."""
    return plain(name) not in known and not _NO_CONTENT.search(name)


def _is_readable(row: Row, reader: RowReader) -> bool:
    format = reader.format_of(row)
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
