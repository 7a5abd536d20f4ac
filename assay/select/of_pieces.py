"""The columns of each piece. Pieces are independent of each other, so workers may compute them.

A worker writes the frames of its pieces to a file. The run reads the files in the order of the pieces, and
removes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import polars as pl

from assay.core.errors import AssayError
from assay.core.jobs import AtWork, killer
from assay.read.kept_languages import languages_of_answers
from assay.select.columns import LANGUAGE, Measure, PieceData
from assay.select.frames import LINE, Dataset, Frames, ToMeasure
from assay.select.groups import ANSWER, GROUP, LAST
from assay.select.token_counts import counter
from assay.select.unscored import is_unscored, reason_of_turn
from assay.select.vocabulary import measure_of
from assay.storage.artifacts import Artifacts, artifacts_of, read_artifact
from assay.storage.handed_over import HandedOver, handing_over, table_in
from assay.storage.home import Home
from assay.storage.manifests import ConvertedPiece, ScoredPiece
from assay.storage.piece_jobs import in_jobs, is_much
from assay.storage.stage import RunContext

#: The columns of a piece that hold conversations and fields of rows. A rule that reads neither is fast.
_OF_TEXTS = frozenset({"messages", "rest"})

#: A record's columns, except its language, take this many times less work than its rows in an export: 3.6 CPU
#: seconds a million short conversations for ``answer_chars`` (measured, ``benchmarks/grow.py``'s data).
_TIMES_LESS = 4


class PieceToMeasure(NamedTuple):
    """A converted piece, with its scores."""

    converted: ConvertedPiece
    scored: ScoredPiece


@contextmanager
def frames_of_pieces(data: Dataset, context: RunContext) -> Iterator[Iterator[Frames]]:
    """Yield the frames of all pieces, in order, with the columns that are computed piece by piece.

    AssayError where scores are not those of the piece's turns, or a file is damaged.
    """
    pieces = [PieceToMeasure(*both) for both in zip(data.converted.pieces, data.scored.pieces, strict=True)]
    attributes = data.scored.attributes
    if not (context.workers.are_several and _takes_long(data)):
        yield (of_piece(one, attributes, data.wanted, data.home) for one in pieces)
        return
    files = artifacts_of(data.home)
    with files.handover() as folder:
        jobs = [
            ColumnsJob(number, pieces[few.start : few.stop], attributes, data.wanted, folder, data.home)
            for number, few in enumerate(in_jobs(data.converted.pieces))
        ]
        made: dict[int, _FramesMade] = {}

        def done(result: _FramesMade) -> None:
            made[result.number] = result

        context.do(jobs, stage="filter", done=done, by=context.workers)
        yield (frames for job in jobs for frames in made[job.number].taken(files))


def _measures(wanted: ToMeasure, attributes: tuple[str, ...]) -> list[Measure]:
    return [measure_of(column.name, attributes, column.kind) for column in wanted.columns]


def _takes_long(data: Dataset) -> bool:
    """Whether the columns take long enough to start workers for. Columns made from scores alone do not."""
    measures = _measures(data.wanted, data.scored.attributes)
    if any(one.column.name == LANGUAGE for one in measures):
        return is_much(data.converted)
    of_texts = any(not _OF_TEXTS.isdisjoint(one.of_records) for one in measures)
    return of_texts and is_much(data.converted, times=_TIMES_LESS)


def of_piece(one: PieceToMeasure, attributes: tuple[str, ...], wanted: ToMeasure, home: Home) -> Frames:
    """The frames of a piece, with columns that rules name and that need no other piece."""
    piece, scores = one.converted, one.scored.scores
    measures = _measures(wanted, attributes)
    of_scores = ["row", "turn", *attributes, "reason", *(name for one in measures for name in one.of_scores)]
    turns = read_artifact(scores, home, list(dict.fromkeys(of_scores)))
    if turns.height != piece.turn_count:
        raise AssayError(
            f"{artifacts_of(home).place_of(scores.path)}: {turns.height} turns where the piece has "
            f"{piece.turn_count}. Remove it and run again: it is made anew."
        )
    if of_turns := list(dict.fromkeys(name for one in measures for name in one.of_turns)):
        turns = turns.hstack(read_artifact(piece.turns, home, of_turns))
    if wanted.has_groups or wanted.with_answers:
        keys = read_artifact(piece.turns, home, ["key", "prompt_key"])
        turns = turns.hstack([keys["key"].alias(ANSWER), keys["prompt_key"].alias(GROUP)])
    unscored = (
        turns.filter(is_unscored(attributes))
        .unique(subset="row", keep="first", maintain_order=True)
        .select("row", reason_of_turn(attributes).alias("reason"))
    )
    if unscored.height:
        turns = turns.join(unscored, on="row", how="anti", maintain_order="left")
    is_last = (pl.col("row") != pl.col("row").shift(-1)).fill_null(True)
    turns = turns.with_columns(is_last.alias(LAST))
    records = turns.filter(LAST).select("row")
    of_records = [name for one in measures for name in one.of_records]
    of_records += ["line"] if wanted.has_pairs else []
    if of_records := list(dict.fromkeys(of_records)):
        contents = read_artifact(piece.records, home, ["row", *of_records])
        contents = records.join(contents, on="row", how="left", maintain_order="left")
    else:
        contents = records
    named = {one.column.name for one in measures}
    counts = {name: counter(place) for name, place in wanted.tokenizers.items() if name in named}
    given = PieceData(piece.file, contents, turns, partial(languages_of_answers, piece, home), counts)
    values = {one.column: one.compute(given).alias(one.column.measured) for one in measures if one.compute}
    keys_kept = [name for name in (ANSWER, GROUP) if name in turns.columns]
    by_turn = [series for column, series in values.items() if column.of_turns]
    turns = turns.select("row", "turn", LAST, *keys_kept).with_columns(by_turn)
    last = turns.filter(LAST).select(*keys_kept, *(series.name for series in by_turn))
    records = records.hstack([series for column, series in values.items() if not column.of_turns])
    if wanted.has_pairs:
        records = records.with_columns(contents["line"].alias(LINE))
    return Frames(turns, records.hstack(last), unscored)


@dataclass(frozen=True, slots=True)
class ColumnsJob:
    """A worker's job: compute the columns of consecutive pieces."""

    number: int
    """Its place among the jobs, which are in the order of the run's pieces."""
    pieces: Sequence[PieceToMeasure]
    attributes: tuple[str, ...]
    wanted: ToMeasure
    folder: str
    """The folder for the frames that a worker writes, below the artifacts' folder or address."""
    home: Home

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"filter {self.pieces[0].converted.file}, job {self.number}"

    @property
    def weight(self) -> int:
        """Bytes of records."""
        return sum(piece.converted.records.size for piece in self.pieces)

    def sent(self) -> ColumnsJob:
        """The job for another process, which may be on another machine."""
        return replace(self, home=self.home.sent())

    def done_by(self, at: AtWork) -> _FramesMade:
        """Write the frames of the pieces to a file, which gets its name once it is whole."""
        home = self.home.here()
        with handing_over(f"{self.folder}/{self.number}.frames", home) as file:
            for piece in self.pieces:
                at.check()
                for frame in of_piece(piece, self.attributes, self.wanted, home):
                    file.add(frame)
        return _FramesMade(self.number, file.handed_over)

    def halves(self) -> Sequence[ColumnsJob]:
        """Nothing: its result is one file."""
        return ()

    def of_a_killer(self) -> _FramesMade:
        """Raises ClusterFault: a run cannot go on without a piece's columns."""
        raise killer(self.name)


class _FramesMade(NamedTuple):
    """What a worker computed of some pieces."""

    number: int
    file: HandedOver
    """The frames of each piece, one piece after the other."""

    def taken(self, files: Artifacts) -> Iterator[Frames]:
        """Yield the frames of each piece, and remove the file. AssayError where it is not on this machine."""
        tables = map(table_in, self.file.parts(files))
        yield from map(Frames, tables, tables, tables)
