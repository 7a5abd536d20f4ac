"""Blocks of kept records, divided by the sides of a split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.export.kept import KeptRecords, items_of
from assay.export.splits import NEMO_OASST, Split, TreeOrder
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
            sides = [self._split.side_of(item.messages) for item in items_of(kept)]
            for side in dict.fromkeys(sides):
                yield OfSide(side, kept.only([one == side for one in sides]))


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
