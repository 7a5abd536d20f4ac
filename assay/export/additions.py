"""What a piece adds to the files of a run. Pieces are independent, so workers may make it.

A worker writes what it made to a file that the run reads, in the order of the pieces, and removes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl

from assay.core.jobs import AtWork, killer
from assay.export.contract import (
    AtOnce,
    EveryRecord,
    Export,
    MadeRows,
    Outcome,
    looks_at_items,
    rows_of_block,
)
from assay.export.kept import Held, Item, KeptRecords, items_of
from assay.export.of_piece import (
    CONTENTS,
    PLACE_IN_FILE,
    blocks_of_records,
    every_turn,
    judged_records,
    kept_blocks,
    named,
    placed,
    scored_turns,
    turns_decided,
    with_given,
    with_verdicts,
)
from assay.export.sides import Sides
from assay.storage.artifacts import Artifacts, read_artifact
from assay.storage.handed_over import HandedOver, handing_over, table_in
from assay.storage.home import Home
from assay.storage.manifests import ConvertedPiece, FilteredPiece, ScoredPiece
from assay.storage.piece_jobs import in_jobs

QUARANTINE = "quarantine.jsonl"
DECISIONS = "decisions.parquet"
DECISIONS_TURNS = "decisions-turns.parquet"
SCORES = "scores.parquet"


@dataclass(frozen=True, slots=True)
class PieceToExport:
    """A converted piece, with what became of it."""

    converted: ConvertedPiece
    scored: ScoredPiece | None
    """None before scoring."""
    filtered: FilteredPiece
    desirable: FilteredPiece | None
    """Keeps the records whose answers are good ones; None without a rule on that."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """What all pieces of a run have in common."""

    exports: tuple[Export[Item], ...]
    sides: Sides
    attributes: tuple[str, ...]
    given: tuple[str, ...]
    """What people gave any turn of the run."""
    held: Held
    """Of all records."""
    held_by_kept: Held
    some_have_rest: bool
    """Whether any record of the run came with other fields than its messages."""

    def completed(self, block: KeptRecords, held: Held) -> KeptRecords:
        """The block, with what it is to know of the other records of the run."""
        return block._replace(some_have_rest=self.some_have_rest, given=self.given, held=held)


class Addition(NamedTuple):
    """What is added to one file."""

    file: str
    """One of the names above, or the name of an export."""
    of: str
    """The input that the piece is of."""
    rows: MadeRows
    side: str = ""
    rank: int | None = None


def additions(
    piece: PieceToExport,
    rendering: Rendering,
    home: Home,
    kept: Callable[[KeptRecords], None] | None = None,
) -> Iterator[Addition]:
    """Yield what the piece adds to each file, in order. ``kept`` takes each block of kept records."""
    file, attributes, given = piece.converted.file, rendering.attributes, rendering.given
    with_contents = bool(rendering.exports) or kept is not None
    columns = PLACE_IN_FILE + (CONTENTS if with_contents else [])
    judged = judged_records(read_artifact(piece.converted.records, home, columns), piece.filtered, home)
    decided = turns_decided(piece.filtered, home)
    judged = with_verdicts(judged, decided, piece.desirable, home)
    turns = scored_turns(piece.converted, piece.scored, piece.filtered, attributes, home)
    yield _table(DECISIONS, file, placed(file, judged.select("line", "part", "outcome", "reason")))
    if piece.scored is not None:
        of_turns = with_given(named(turns, judged, attributes), given)
        yield _table(SCORES, file, placed(file, of_turns.drop("given")))
    if decided is not None:
        yield _table(DECISIONS_TURNS, file, placed(file, every_turn(turns, decided, judged)))
    bad = judged.filter(pl.col("outcome") == "quarantined")
    if bad.height:
        yield _table(QUARANTINE, file, bad.select("line", "part", "offset", "length", "reason"))
    if not with_contents:
        return
    of_kept = [one for one in rendering.exports if not (_of_every_record(one) or _of_dropped(one))]
    one_by_one = any(map(looks_at_items, of_kept))
    for block in kept_blocks(file, judged, turns, attributes, decided):
        whole = rendering.completed(block, rendering.held_by_kept)
        for side, of_side, rank in rendering.sides.divided(whole):
            records = list(items_of(of_side)) if one_by_one else []
            for one in of_kept:
                yield Addition(one.name, file, rows_of_block(one, of_side, records), side, rank)
        if kept is not None:
            kept(whole)
    others = [
        (judged.filter(pl.col("outcome") == "dropped"), list(filter(_of_dropped, rendering.exports))),
        (judged, list(filter(_of_every_record, rendering.exports))),
    ]
    for records_of_them, exports in others:
        if exports:
            for block in blocks_of_records(file, records_of_them, turns, attributes):
                of_run = rendering.completed(block, rendering.held)
                for one in exports:
                    yield Addition(one.name, file, rows_of_block(one, of_run))


def _of_every_record(export: Export[Item]) -> bool:
    return isinstance(export.row, EveryRecord)


def _of_dropped(export: Export[Item]) -> bool:
    return isinstance(export.row, AtOnce) and export.row.outcome is Outcome.DROPPED


def _table(name: str, file: str, table: pl.DataFrame) -> Addition:
    return Addition(name, file, MadeRows(b"", table, table.height, Counter(), Counter()))


@dataclass(frozen=True, slots=True)
class AdditionsJob:
    """Consecutive pieces, as workers are handed them."""

    number: int
    """Its place among the jobs, which is that of its pieces in the run."""
    pieces: Sequence[PieceToExport]
    rendering: Rendering
    folder: str
    """Where a worker leaves what it made, below the artifacts' folder or address."""
    home: Home

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"export {self.pieces[0].converted.file}, job {self.number}"

    @property
    def weight(self) -> int:
        """All weigh the same: they are handed out in the order in which their results are needed."""
        return 1

    def sent(self) -> AdditionsJob:
        """The job for another process, which may be on another machine."""
        return replace(self, home=self.home.sent())

    def done_by(self, at: AtWork) -> AdditionsMade:
        """Write what the pieces add to a file. It has its name once it is whole."""
        home = self.home.here()
        without: list[Addition] = []
        with handing_over(f"{self.folder}/{self.number}.additions", home) as file:
            for piece in self.pieces:
                at.check()
                for one in additions(piece, self.rendering, home):
                    file.add(one.rows.lines if one.rows.table is None else one.rows.table)
                    without.append(_without_content(one))
        return AdditionsMade(self.number, tuple(without), file.handed_over)

    def halves(self) -> Sequence[AdditionsJob]:
        """Nothing: its result is one file."""
        return ()

    def of_a_killer(self) -> AdditionsMade:
        """ClusterFault: a run that cannot export a piece ends."""
        raise killer(self.name)


@dataclass(frozen=True, slots=True)
class AdditionsMade:
    """What a worker made of some pieces."""

    number: int
    additions: tuple[Addition, ...]
    """The additions without their content: no lines, and an empty table in place of a table."""
    file: HandedOver
    """The content of each addition: its lines or its table."""

    def taken(self, files: Artifacts) -> Iterator[Addition]:
        """Yield the additions in order, and remove their file. AssayError where it is not on this machine."""
        for one, part in zip(self.additions, self.file.parts(files), strict=True):
            is_table = one.rows.table is not None
            rows = one.rows._replace(table=table_in(part)) if is_table else one.rows._replace(lines=part)
            yield one._replace(rows=rows)


def _without_content(addition: Addition) -> Addition:
    rows = addition.rows
    table = None if rows.table is None else pl.DataFrame()
    return addition._replace(rows=rows._replace(lines=b"", table=table))


def jobs_of(
    pieces: Sequence[PieceToExport], rendering: Rendering, folder: str, home: Home
) -> Iterator[AdditionsJob]:
    """Yield jobs that hold all pieces in order, small pieces together."""
    groups = in_jobs([piece.converted for piece in pieces])
    for number, group in enumerate(groups):
        yield AdditionsJob(number, pieces[group.start : group.stop], rendering, folder, home)
