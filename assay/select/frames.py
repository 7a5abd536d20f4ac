"""What is to be measured, and the frames that measured values stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import polars as pl

from assay.select.expressions import Expression, GivenPair, InGroup, NamedColumn, parts
from assay.select.groups import GROUP_SIZE
from assay.select.sides import SIDE
from assay.select.token_counts import TokenizerPlace
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored

Part = TypeVar("Part", bound=Expression)
#: The column of frames of records with their line, where both sides of a row are needed.
LINE = ".line"


@dataclass(frozen=True, slots=True)
class ToMeasure:
    """All that is to be measured."""

    expressions: tuple[Expression, ...] = ()
    group: NamedColumn | None = None
    """The field whose equal values make a group; None: equal messages before the turn."""
    by_turn: bool = False
    """Whether a turn's percentile is among all turns; else among the last turns of the records."""
    with_answers: bool = False
    """Whether the frames of records have ``ANSWER``."""
    tokenizers: Mapping[str, TokenizerPlace] = field(default_factory=dict)
    """What counts the tokens of an answer, by column. A model may have no tokenizer here."""

    def of_type(self, kind: type[Part]) -> tuple[Part, ...]:
        """The different parts of that type, those inside of others first."""
        found = (part for whole in self.expressions for part in parts(whole))
        return tuple(dict.fromkeys(part for part in found if isinstance(part, kind)))

    @property
    def columns(self) -> tuple[NamedColumn, ...]:
        """The columns that are computed piece by piece."""
        named = [*self.of_type(NamedColumn), *([self.group] if self.group else [])]
        named += [SIDE] if self.has_pairs else []
        return tuple(dict.fromkeys(column for column in named if column.name != GROUP_SIZE))

    @property
    def has_sizes(self) -> bool:
        """Whether ``group_size`` is among it."""
        return any(column.name == GROUP_SIZE for column in self.of_type(NamedColumn))

    @property
    def has_groups(self) -> bool:
        """Whether any of it needs whole groups."""
        return self.has_sizes or bool(self.of_type(InGroup))

    @property
    def has_pairs(self) -> bool:
        """Whether any of it needs both sides of a row."""
        return bool(self.of_type(GivenPair))


class Frames(NamedTuple):
    """The scored records of a piece, and their turns, in input order."""

    turns: pl.DataFrame
    """``row``, ``turn``, ``LAST``, and the values that turns have of their own."""
    records: pl.DataFrame
    """``row``, the values of the records, and those of their last turns."""
    unscored: pl.DataFrame
    """``row`` and ``reason`` of each record with a turn that has no score."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is to be measured, and of what."""

    converted: Converted
    scored: Scored
    wanted: ToMeasure
    home: Home
