"""A benchmark as a value: how its rows are read, which figures it has, and how they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from assay.evaluate.answers import UnitsOf, pair_units
from assay.evaluate.figures import Spec
from assay.evaluate.items import AskedItem, Gather, Line


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a benchmark, for the groups that the items have."""

    overall: Spec
    groups: Mapping[str, Spec]
    overall_by_rows: Spec | None = None
    """Where published tables also have an overall figure that weighs each row alike."""
    groups_by_rows: Mapping[str, Spec] | None = None
    """The same of groups that lie across the domains."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What a module of this package says of its benchmark."""

    name: str
    title: str
    holds: Callable[[Line], bool]
    """Whether a line looks like one of this benchmark's."""
    gather: Gather
    figures: Callable[[Sequence[str]], Figures]
    """The figures for items with these groups."""
    units: UnitsOf = pair_units
    expected: Callable[[Sequence[AskedItem]], int | None] = lambda items: None
    """How many rows the benchmark has, as far as these items show which part of it they are; None: it has no
    fixed number."""
    rules: tuple[str, ...] = ()
    """How the figures are made, a sentence each."""
    source: str | None = None
    """Where these rules are from."""
    swaps_count: bool = False
    """Whether a tie counts for the answer that stands second."""
