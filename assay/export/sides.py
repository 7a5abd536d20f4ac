"""The sides of a split: of blocks of kept records, and of pairs."""

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

#: Why a pair is in no file: its answers come from two groups, or two trees, on different sides.
ON_TWO_SIDES = "answers_on_two_sides"

#: The format whose lines are trees (assay/read/formats/oasst_trees.py).
_TREES = "oasst_trees"


class OfSide(NamedTuple):
    """Records of one side."""

    side: str
    """Empty where nothing is split."""
    kept: KeptRecords
    rank: int | None = None
    """Where their rows stand among those of the side; None: in the order in which they come."""


class Origin(NamedTuple):
    """What decides the side of an answer besides its prompt."""

    line: int
    """The line of the input that its record comes from."""
    group: str | None = None
    """The value of its record's group, where sides go by that and there is one."""


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
                of_tree = kept.only([one == line for one in lines])
                yield OfSide(self._trees.side_of(line), of_tree, self._trees.ranks[line])
        else:
            groups = self.groups(kept.records)
            sides = [
                self._side_of(item.messages, Origin(item.line, group))
                for item, group in zip(items_of(kept), groups, strict=True)
            ]
            for side in dict.fromkeys(sides):
                yield OfSide(side, kept.only([one == side for one in sides]))

    def of_pair(self, prompt: Conversation, chosen: Origin, rejected: Origin) -> str | None:
        """The side of a pair: that of both answers; None where they are on different ones.

        Empty where nothing is split.
        """
        side = self._side_of(prompt, chosen)
        return side if self._side_of(prompt, rejected) == side else None

    def _side_of(self, messages: Conversation, origin: Origin) -> str:
        if self._split is None:
            return ""
        if self._trees is not None:
            return self._trees.side_of(origin.line)
        if isinstance(self._split, SplitByGroup) and origin.group is not None:
            return self._split.side_of_group(origin.group)
        return self._split.side_of(messages)


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
