"""What a benchmark asks: items, each of several answers to one prompt of which some are better than others.

A reader (a module for each benchmark) makes items of the lines of the inputs. It holds no text: an answer is
a turn of a converted record, which the score stage rates like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from assay.core.calls import Json


@dataclass(frozen=True, slots=True)
class Turn:
    """An assistant's turn of a record."""

    turn: int
    key: bytes
    prompt: bytes
    """A hash of everything before the turn."""
    characters: int
    """Of the answer's text."""
    given: Mapping[str, float]
    """What people gave it, by name."""


@dataclass(frozen=True, slots=True)
class Record:
    """A converted record: an answer after what it answers."""

    piece: int
    row: int
    line: int
    part: int
    offset: int
    length: int
    outcome: str
    reason: str | None
    turns: tuple[Turn, ...] = ()
    opening: bytes = b""
    """A hash of everything before its first turn."""
    side: str | None = None
    """``chosen`` or ``rejected``, where the row says it."""


@dataclass(frozen=True, slots=True)
class Line:
    """An input line: its records, and its other fields."""

    file: str
    number: int
    records: tuple[Record, ...]
    rest: Mapping[str, Json]

    def text(self, name: str) -> str | None:
        """The field's text; a number as its digits; None where it is something else."""
        value = self.rest.get(name)
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def problem(self) -> str | None:
        """Why a record of the line could not be read; None where all could."""
        return next((one.reason or one.outcome for one in self.records if one.outcome != "ok"), None)


@dataclass(frozen=True, slots=True)
class ItemAnswer:
    """One answer of an item."""

    piece: int
    row: int
    turn: int
    place: int
    """Its place among the answers of its line, from 0."""
    worth: float
    """An answer of a greater worth is better; equal ones are not compared."""
    characters: int
    key: bytes
    line: int
    """The input line that it is from, and its number among that line's records."""
    part: int


@dataclass(frozen=True, slots=True)
class AskedItem:
    """Answers that are compared with each other."""

    id: str
    """The row's own id, or else ``FILE:LINE``."""
    group: str
    """The domain, section or subset that it counts in."""
    prompt: bytes
    """A hash of what the answers answer. Items with one prompt are resampled together."""
    file: str
    line: int
    answers: tuple[ItemAnswer, ...]
    language: str | None = None
    positioned: bool = False
    """Whether the row shows its answers in an order, such as A and B, that says nothing on their worth."""
    part: str = ""
    """The part of its group, or of the benchmark, that it belongs to."""
    rows: int = 1
    """How many lines it is made of."""
    opening: bytes = b""
    """A hash of how the conversation begins: what was said before its first answer."""
    given: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    """What people gave the answers, by name: each answer's in its place, null where nobody gave it."""


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line, or a part of it, that is no item."""

    line: Line
    reason: str
    """``code`` or ``code: detail``."""
    outcome: Literal["dropped", "quarantined"] = "quarantined"


Gather = Callable[[Iterable[Line]], Iterator[AskedItem | RefusedLine]]


def answer_of(record: Record, place: int, worth: float, turn: Turn | None = None) -> ItemAnswer:
    """A turn of the record as an answer: the last one, unless another is named."""
    found = turn or record.turns[-1]
    return ItemAnswer(
        record.piece,
        record.row,
        found.turn,
        place,
        worth,
        found.characters,
        found.key,
        record.line,
        record.part,
    )


def by_line(read: Callable[[Line], AskedItem | RefusedLine]) -> Gather:
    """A ``Gather`` of a benchmark whose every line is an item. A line that is damaged is quarantined."""

    def gather(lines: Iterable[Line]) -> Iterator[AskedItem | RefusedLine]:
        for line in lines:
            problem = line.problem
            yield read(line) if problem is None else RefusedLine(line, problem)

    return gather


def id_of(line: Line, *names: str) -> str:
    """The line's own id under one of the names; else its file and line."""
    found = (line.text(name) for name in (*names, "id"))
    return next((one for one in found if one), f"{line.file}:{line.number}")


def language_of(line: Line) -> str | None:
    """The language that the line names for itself."""
    return next((one for name in ("language", "lang") if (one := line.text(name))), None)
