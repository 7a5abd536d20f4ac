"""What the rules of a run can name: the scores of its model, the columns of every record, and functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from assay.core.schema import GIVEN
from assay.core.text import nearest
from assay.select.columns import (
    COLUMNS,
    FLAG_COLUMNS,
    ROW,
    Measure,
    attribute,
    field,
    given,
)
from assay.select.expressions import GivenPairName, InGroupName, NamedColumn, OverTurnsName, Value, ValueKind

OVER_TURNS: tuple[OverTurnsName, ...] = get_args(OverTurnsName)
IN_GROUP: tuple[InGroupName, ...] = get_args(InGroupName)
PERCENTILE = "percentile"
EVERY_TURN = ("all", "any")
GIVEN_PAIR: tuple[GivenPairName, ...] = get_args(GivenPairName)

#: What each function is of, for messages.
FUNCTIONS: Mapping[str, str] = MappingProxyType(
    {
        **{name: f"{name}(helpfulness)" for name in (*OVER_TURNS, *IN_GROUP, PERCENTILE)},
        **{name: f"{name}(helpfulness >= 2)" for name in EVERY_TURN},
    }
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that a rule may use."""

    attributes: tuple[str, ...]
    """What the model rates, and its one number where it is a sum."""
    flags: Mapping[str, str | None]
    """None for a flag that may be used; for any other, the reason why it may not."""
    unknown: Mapping[str, str]
    """Columns that are not known for this model, each with the reason."""
    order: Value | None = None
    """What orders answers, for ``agrees`` and ``given_margin``; None where nobody chose it."""

    def why_not(self, name: str) -> str | None:
        """Why a flag or a column that there is may not be used with this model; None where it may."""
        return None if name in self.attributes else self.flags.get(name) or self.unknown.get(name)

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return (
            name in self.attributes
            or name in self.flags
            or name in COLUMNS
            or name in GIVEN_PAIR
            or any(name.startswith(prefix) and len(name) > len(prefix) for prefix in (ROW, GIVEN))
        )

    def column(self, name: str, kind: ValueKind = ValueKind.ANY) -> NamedColumn:
        """The column of that name, which ``has`` it; a row's field is taken as of that ``kind``."""
        return measure_of(name, self.attributes, kind).column

    def near(self, name: str) -> str | None:
        """The name that is meant, probably."""
        return nearest(name, (*self.attributes, *self.flags, *COLUMNS, *GIVEN_PAIR, *FUNCTIONS))

    @property
    def others(self) -> str:
        """The names that are no score's, for a message."""
        return f"{', '.join([*self.flags, *COLUMNS, *GIVEN_PAIR])}, row.FIELD and given.NAME"


def measure_of(name: str, attributes: tuple[str, ...], kind: ValueKind = ValueKind.ANY) -> Measure:
    """How a column is computed, by its name; KeyError where there is none."""
    if name in attributes:
        return attribute(name)
    if name.startswith(ROW):
        return field(name, kind)
    if name.startswith(GIVEN):
        return given(name)
    return FLAG_COLUMNS.get(name) or COLUMNS[name]
