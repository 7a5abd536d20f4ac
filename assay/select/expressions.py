"""What a rule is made of: typed values and predicates. Each is text in one spelling, and a polars expression.

A value belongs to a turn or to a record. Frames hold it in the column that ``measured`` names: in a frame of
turns each turn's own, in a frame of records that of the record, which for a turn's value is the last turn's.
So one expression serves both readings of a rule.

A score is a float32, so a threshold on it is rounded to the nearest float32 before the comparison. Then a
score that is printed as 0.1 is ``== 0.1`` and ``<= 0.1``, as in numpy and polars. Rounding keeps the order,
so no comparison is turned round. What a function makes of float32 values is a float32 too. Other numbers
are float64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import polars as pl

from assay.select.tokens import quoted

OverTurnsName = Literal["first", "last", "min", "max", "mean"]
InGroupName = Literal["rank", "margin", "gap", "centred", "zscore"]
GivenPairName = Literal["agrees", "given_margin"]
Operator = Literal["<", "<=", ">", ">=", "==", "!="]


class ValueKind(StrEnum):
    """What a value is."""

    NUMBER = "a number"
    STRING = "a string"
    BOOLEAN = "true or false"
    ANY = "of any kind"


class Scope(StrEnum):
    """What one value is measured over."""

    TURN = "turn"
    RECORD = "record"
    GROUP = "group"
    DATASET = "dataset"


@dataclass(frozen=True, slots=True)
class NamedColumn:
    """A value that is measured, and not made of others."""

    name: str
    scope: Scope
    kind: ValueKind = ValueKind.NUMBER
    is_float32: bool = False
    of_turns: bool = True
    """Whether each turn has its own; else all turns of a record have the same."""

    @property
    def measured(self) -> str:
        """Its column in a frame. A row's field may be measured as numbers and as strings."""
        return f"{self.name} as {self.kind}" if self.name.startswith("row.") else self.name

    @property
    def operands(self) -> tuple[Value, ...]:
        """None."""
        return ()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class OverTurns:
    """One value of a record, made of those of its turns."""

    function: OverTurnsName
    operand: Value
    of_turns: bool = False

    @property
    def kind(self) -> ValueKind:
        """That of the operand."""
        return self.operand.kind

    @property
    def is_float32(self) -> bool:
        """As the operand."""
        return self.operand.is_float32

    @property
    def measured(self) -> str:
        """Its column in a frame."""
        return str(self)

    @property
    def operands(self) -> tuple[Value, ...]:
        """What it is made of."""
        return (self.operand,)

    def over_turns(self) -> pl.Expr:
        """The value of each group of turns, which are in order. Turns without a value count for nothing.

        ``first`` and ``last`` are missing where that turn's is.
        """
        values = pl.col(self.operand.measured)
        match self.function:
            case "first":
                made = values.first()
            case "last":
                made = values.last()
            case "min":
                made = values.min()
            case "max":
                made = values.max()
            case "mean":
                made = values.cast(pl.Float64).mean()
                made = made.cast(pl.Float32) if self.is_float32 else made
        return made.alias(self.measured)

    def __str__(self) -> str:
        return f"{self.function}({self.operand})"


@dataclass(frozen=True, slots=True)
class InGroup:
    """How a value stands to the others of its group."""

    function: InGroupName
    operand: Value

    @property
    def kind(self) -> ValueKind:
        """A number."""
        return ValueKind.NUMBER

    @property
    def is_float32(self) -> bool:
        """As the operand; a rank is a whole number."""
        return self.operand.is_float32 and self.function != "rank"

    @property
    def of_turns(self) -> bool:
        """As the operand: each turn has a group of its own."""
        return self.operand.of_turns

    @property
    def measured(self) -> str:
        """Its column in a frame."""
        return str(self)

    @property
    def operands(self) -> tuple[Value, ...]:
        """What it is made of."""
        return (self.operand,)

    def __str__(self) -> str:
        return f"{self.function}({self.operand})"


@dataclass(frozen=True, slots=True)
class Percentile:
    """The share of the dataset that a value exceeds: 0 to 100."""

    operand: Value
    by: NamedColumn | None = None
    """Records are compared with those that have the same value here; None: with all."""

    @property
    def kind(self) -> ValueKind:
        """A number."""
        return ValueKind.NUMBER

    @property
    def is_float32(self) -> bool:
        """False: it is a share, not a score."""
        return False

    @property
    def of_turns(self) -> bool:
        """As the operand."""
        return self.operand.of_turns

    @property
    def measured(self) -> str:
        """Its column in a frame."""
        return str(self)

    @property
    def operands(self) -> tuple[Value, ...]:
        """What it is made of."""
        return (self.operand,) if self.by is None else (self.operand, self.by)

    def __str__(self) -> str:
        return (
            f"percentile({self.operand})" if self.by is None else f"percentile({self.operand}, by={self.by})"
        )


@dataclass(frozen=True, slots=True)
class GivenPair:
    """How a model's number stands to what a person chose and rejected: a value of both sides of a row."""

    function: GivenPairName
    operand: Value
    """The number; of a turn's value that of the last turn counts."""
    of_turns: bool = False

    @property
    def kind(self) -> ValueKind:
        """Whether the model agrees, or by how much."""
        return ValueKind.BOOLEAN if self.function == "agrees" else ValueKind.NUMBER

    @property
    def is_float32(self) -> bool:
        """As the operand."""
        return self.operand.is_float32 and self.function != "agrees"

    @property
    def measured(self) -> str:
        """Its column in a frame."""
        return self.function

    @property
    def operands(self) -> tuple[Value, ...]:
        """What it is made of."""
        return (self.operand,)

    def __str__(self) -> str:
        return self.function


Value = NamedColumn | OverTurns | InGroup | Percentile | GivenPair


@dataclass(frozen=True, slots=True)
class Comparison:
    """A value against a number or a string."""

    value: Value
    operator: Operator
    threshold: float | str
    """Of a float32 value, the nearest float32 to what was written."""

    @property
    def operands(self) -> tuple[Value, ...]:
        """What it compares."""
        return (self.value,)

    def expression(self) -> pl.Expr:
        """True, false, or null where there is no value."""
        value = pl.col(self.value.measured)
        threshold = _literal(self.threshold, self.value)
        match self.operator:
            case "<":
                return value < threshold
            case "<=":
                return value <= threshold
            case ">":
                return value > threshold
            case ">=":
                return value >= threshold
            case "==":
                return value == threshold
            case "!=":
                return value != threshold

    def __str__(self) -> str:
        return f"{self.value} {self.operator} {_shown(self.threshold, self.value)}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Whether a value is in a list."""

    value: Value
    items: tuple[float | str, ...]

    @property
    def operands(self) -> tuple[Value, ...]:
        """What it compares."""
        return (self.value,)

    def expression(self) -> pl.Expr:
        """True, false, or null where there is no value."""
        value = pl.col(self.value.measured)
        return pl.any_horizontal([value == _literal(item, self.value) for item in self.items])

    def __str__(self) -> str:
        return f"{self.value} in ({', '.join(_shown(item, self.value) for item in self.items)})"


@dataclass(frozen=True, slots=True)
class Missing:
    """Whether there is no value."""

    value: Value

    @property
    def operands(self) -> tuple[Value, ...]:
        """What it looks at."""
        return (self.value,)

    def expression(self) -> pl.Expr:
        """True or false."""
        return pl.col(self.value.measured).is_null()

    def __str__(self) -> str:
        return f"{self.value} is missing"


@dataclass(frozen=True, slots=True)
class Flag:
    """A value that is true or false, and stands alone."""

    value: Value

    @property
    def operands(self) -> tuple[Value, ...]:
        """The value."""
        return (self.value,)

    def expression(self) -> pl.Expr:
        """True, false, or null where there is no value."""
        return pl.col(self.value.measured)

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class EveryTurn:
    """Whether a predicate holds at all turns of a record, or at any."""

    function: Literal["all", "any"]
    operand: Predicate

    @property
    def operands(self) -> tuple[Predicate, ...]:
        """What has to hold."""
        return (self.operand,)

    @property
    def measured(self) -> str:
        """Its column in a frame of records."""
        return str(self)

    def over_turns(self) -> pl.Expr:
        """True, false or null of each group of turns; null where a turn without a value leaves it open."""
        held = self.operand.expression()
        made = held.all(ignore_nulls=False) if self.function == "all" else held.any(ignore_nulls=False)
        return made.alias(self.measured)

    def expression(self) -> pl.Expr:
        """True, false, or null."""
        return pl.col(self.measured)

    def __str__(self) -> str:
        return f"{self.function}({self.operand})"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether two numbers give an answer the same rank within its group."""

    first: InGroup
    second: InGroup

    @property
    def operands(self) -> tuple[Value, ...]:
        """The two ranks."""
        return (self.first, self.second)

    def expression(self) -> pl.Expr:
        """True, false, or null where one of them has no value."""
        return pl.col(self.first.measured) == pl.col(self.second.measured)

    def __str__(self) -> str:
        return f"agree({self.first.operand}, {self.second.operand})"


@dataclass(frozen=True, slots=True)
class Not:
    """True where its operand is false."""

    operand: Predicate

    @property
    def operands(self) -> tuple[Predicate, ...]:
        """What is denied."""
        return (self.operand,)

    def expression(self) -> pl.Expr:
        """True, false, or null where there is no value."""
        return ~self.operand.expression()

    def __str__(self) -> str:
        if isinstance(self.operand, Both | Either):
            return f"not ({self.operand})"
        return f"not {self.operand}"


@dataclass(frozen=True, slots=True)
class Both:
    """True where all operands are true. It has two or more; none is a ``Both``."""

    operands: tuple[Predicate, ...]

    def expression(self) -> pl.Expr:
        """True, false, or null where a value is missing that decides."""
        return pl.all_horizontal([operand.expression() for operand in self.operands])

    def __str__(self) -> str:
        return " and ".join(
            f"({operand})" if isinstance(operand, Either) else str(operand) for operand in self.operands
        )


@dataclass(frozen=True, slots=True)
class Either:
    """True where an operand is true. It has two or more; none is an ``Either``."""

    operands: tuple[Predicate, ...]

    def expression(self) -> pl.Expr:
        """True, false, or null where a value is missing that decides."""
        return pl.any_horizontal([operand.expression() for operand in self.operands])

    def __str__(self) -> str:
        return " or ".join(str(operand) for operand in self.operands)


Predicate = Comparison | OneOf | Missing | Flag | EveryTurn | Agreement | Not | Both | Either
Expression = Value | Predicate


def parts(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and all that it is made of, what is inside first."""
    for operand in expression.operands:
        yield from parts(operand)
    yield expression


def outside(expression: Expression, *hidden: type) -> Iterator[Expression]:
    """Yield an expression and what it is made of, without what lies inside of one of the ``hidden`` types."""
    if not isinstance(expression, hidden):
        for operand in expression.operands:
            yield from outside(operand, *hidden)
    yield expression


def varies_by_turn(expression: Expression) -> bool:
    """Whether its value may differ from turn to turn of one record."""
    return any(
        isinstance(part, NamedColumn) and part.of_turns
        for part in outside(expression, OverTurns, EveryTurn, GivenPair)
    )


def nearest_float32(value: float) -> float:
    """The float32 nearest to ``value``; OverflowError beyond the largest."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _literal(item: float | str, value: Value) -> pl.Expr:
    if isinstance(item, str):
        return pl.lit(item)
    return pl.lit(item, dtype=pl.Float32 if value.is_float32 else pl.Float64)


def _shown(item: float | str, value: Value) -> str:
    if isinstance(item, str):
        return quoted(item)
    return _shortest(item) if value.is_float32 else repr(item).removesuffix(".0")


def _shortest(value: float) -> str:
    """The shortest decimal that parses to this float32. Nine digits are always enough."""
    for digits in range(1, 9):
        text = f"{value:.{digits}g}"
        if _reads_as(text, value):
            return text
    return f"{value:.9g}"


def _reads_as(text: str, value: float) -> bool:
    # The largest float32 is 3.402823e+38. Fewer digits can round to a larger number.
    try:
        return nearest_float32(float(text)) == value
    except OverflowError:
        return False
