"""The sides of a split: of kept records, and of answers, which pairs are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from assay.core.errors import UserMistake
from assay.core.schema import Conversation
from assay.export.kept import KeptRecords, items_of
from assay.export.splits import NEMO_OASST, Split, SplitByGroup, TreeOrder
from assay.select.columns import groups_of
from assay.storage.manifests import Converted

#: The format whose lines are trees (assay/read/formats/oasst_trees.py).
_TREES = "oasst_trees"


class OfSide(NamedTuple):
    """Records of one side."""

    side: str
    """Empty where nothing is split."""
    kept: KeptRecords
    rank: int | None = None
    """Where their rows stand among those of the side; None: in the order in which they come."""


class Sides:
    """The sides of a run's files."""

    def __init__(self, split: Split | None, converted: Converted) -> None:
        self._split = split
        self._trees = _trees_of(converted) if split is not None and split.nemo_oasst else None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sides; none where nothing is split."""
        return self._split.sides if self._split is not None else ()

    @property
    def are_ranked(self) -> bool:
        """Whether rows stand in another order than that of the inputs."""
        return self._trees is not None

    def groups(self, records: pl.DataFrame) -> list[str | None]:
        """Of each record the value of its group; None where it has none, or sides do not go by groups.

        ``records`` have ``rest``.
        """
        if isinstance(self._split, SplitByGroup):
            return groups_of(records["rest"], self._split.group)
        return [None] * records.height

    def divided(self, kept: KeptRecords) -> Iterator[OfSide]:
        """Yield the records of a block by side; trees one by one."""
        if self._split is None:
            yield OfSide("", kept)
        elif self._trees is not None:
            lines = kept.records["line"].to_list()
            for line in dict.fromkeys(lines):
                of_tree = kept.only(pl.Series([one == line for one in lines], dtype=pl.Boolean))
                yield OfSide(self._trees.side_of(line), of_tree, self._trees.ranks[line])
        else:
            sides = [
                self.of_prompt(item.messages) if side is None else side
                for item, side in zip(items_of(kept), self.whole(kept.records), strict=True)
            ]
            for side in dict.fromkeys(sides):
                yield OfSide(side, kept.only(pl.Series([one == side for one in sides], dtype=pl.Boolean)))

    def whole(self, records: pl.DataFrame) -> list[str | None]:
        """Of each record the side that all its answers are on; None where each goes by its prompt.

        Empty where nothing is split. ``records`` have ``line`` and ``rest``.
        """
        if self._split is None:
            return [""] * records.height
        if self._trees is not None:
            return [self._trees.side_of(line) for line in records["line"]]
        if isinstance(self._split, SplitByGroup):
            by_group = self._split.side_of_group
            return [None if group is None else by_group(group) for group in self.groups(records)]
        return [None] * records.height

    def of_prompt(self, messages: Conversation) -> str:
        """The side of a prompt, by its messages through the first of a user. Empty where nothing is split."""
        return "" if self._split is None else self._split.side_of(messages)


def _trees_of(converted: Converted) -> TreeOrder:
    """NeMo-Aligner's order of the trees; UserMistake where the input is no file of trees."""
    formats = [file.format for file in converted.inputs]
    if formats != [_TREES]:
        raise UserMistake(
            f"--split {NEMO_OASST}: divides one file of OpenAssistant's trees (format {_TREES}), as "
            f"NeMo-Aligner does; this run reads {', '.join(formats) or 'no file'}. Name shares instead, as "
            "--split val=0.05"
        )
    return TreeOrder.of(converted.lines)
