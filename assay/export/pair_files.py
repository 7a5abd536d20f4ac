"""The files of pairs: one for each preference export, and ``pairs.parquet``, which says what each pair is."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from assay.export.contract import ToWrite, rows_of
from assay.export.files import TableFile
from assay.export.kept import Held, KeptRecords
from assay.export.pair_texts import PAIR_COLUMNS, Answers, Paired, WithTexts, with_texts
from assay.export.pairs import Pair
from assay.export.sides import Sides
from assay.export.trained import TrainerFile
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored
from assay.storage.run_manifest import ExportedFile, PairsMade

PAIRS = "pairs.parquet"
_PERCENT = (5, 25, 50, 75, 95)


class PairFiles:
    """The files of pairs while they are written: first all answers are gathered, then pairs are made."""

    def __init__(
        self,
        wanted: ToWrite,
        staging: Path,
        attributes: tuple[str, ...],
        stack: ExitStack,
        scored: Scored | None,
        held: Held,
        sides: Sides,
    ) -> None:
        self._choice = wanted.choice
        self._held = held
        self._folder = staging / f".{PAIRS}.parts"
        self._answers = Answers(self._folder, sides, turns=scored.turns if scored else 0)
        self._table = TableFile(staging / PAIRS, PAIR_COLUMNS)
        self.trained = [
            TrainerFile(
                export,
                staging,
                attributes,
                stack,
                sides=sides.names,
                held=held,
                shard_bytes=wanted.shard_bytes,
            )
            for export in wanted.pairs
        ]
        self.summary: PairsMade | None = None
        """What was made, once all is written."""

    def add(self, piece: int, kept: KeptRecords) -> None:
        """Take the answers of a block of the piece of this number."""
        self._answers.add(piece, kept)

    def finish(self, converted: Converted, home: Home) -> dict[str, ExportedFile]:
        """Make the pairs and write them; ``pairs.parquet`` by its name."""
        paired = self._answers.paired(self._choice, [piece.file for piece in converted.pieces])
        for some in with_texts(paired, converted, home, self._folder):
            self._table.add(some.places)
            for side, of_side in _by_side(some).items():
                for one in self.trained:
                    one.write(rows_of(one.export, of_side, self._held), side)
        shutil.rmtree(self._folder)
        self.summary = _summary(paired)
        return {PAIRS: self._table.finish()}


def _by_side(some: WithTexts) -> dict[str, list[Pair]]:
    """The pairs by the sides of the split, each side's in order."""
    found: dict[str, list[Pair]] = {}
    for pair, side in zip(some.pairs, some.sides, strict=True):
        found.setdefault(side, []).append(pair)
    return found


def _summary(paired: Paired) -> PairsMade:
    table = paired.table
    margins = {
        str(percent): float(margin)
        for percent in _PERCENT
        if (margin := table["margin"].quantile(percent / 100, "nearest")) is not None
    }
    longer = table.select((pl.col("chosen_characters") > pl.col("rejected_characters")).mean()).item()
    return PairsMade(
        paired.prompts,
        table.height,
        dict(sorted(paired.without.items())),
        dict(sorted(paired.passed_over.items())),
        margins,
        longer,
    )
