"""The result files of a run, written piece by piece: what a stage holds in memory is one piece.

Whatever a run stops after, ``decisions.parquet`` names every record once with what became of it, and
``quarantine.jsonl`` gives the original of each that could not be processed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import polars as pl

from assay.core.jobs import in_order
from assay.core.schema import SCORE
from assay.export.additions import (
    DECISIONS,
    DECISIONS_TURNS,
    QUARANTINE,
    SCORES,
    Addition,
    AdditionsMade,
    PieceToExport,
    Rendering,
    additions,
    jobs_of,
)
from assay.export.contract import EveryRecord, ToWrite
from assay.export.files import Exported, LinesFile, TableFile
from assay.export.kept import Held, KeptRecords
from assay.export.of_piece import (
    CONTENTS,
    PLACE_IN_FILE,
    judged_records,
    kept_blocks,
    named,
    placed,
    scored_turns,
    turns_decided,
    with_given,
    with_verdicts,
)
from assay.export.pair_files import PairFiles
from assay.export.quarantine import QuarantineJob, QuarantineMade, quarantine_blocks
from assay.export.sides import Sides
from assay.export.trained import TrainerFile, companions
from assay.export.turned import turns_left
from assay.read.known_files import KnownFiles
from assay.read.remote_inputs import reads_elsewhere
from assay.rewards.scalar import scalar_among
from assay.storage.addresses import is_remote
from assay.storage.artifacts import artifacts_of, read_artifact
from assay.storage.disk import full_disk_named
from assay.storage.home import Home
from assay.storage.manifests import (
    Converted,
    ConvertedPiece,
    Filtered,
    FilteredPiece,
    InputFile,
    Scored,
    ScoredPiece,
)
from assay.storage.piece_jobs import is_much
from assay.storage.stage import RunContext

_PLACE: dict[str, type[pl.DataType]] = {"file": pl.String, "line": pl.UInt64, "part": pl.UInt32}
_DECISION_COLUMNS = _PLACE | {"outcome": pl.String, "reason": pl.String}
_TURN_COLUMNS = _PLACE | {"turn": pl.UInt32, "outcome": pl.String, "reason": pl.String}


def write_results(
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    exports: ToWrite,
    context: RunContext,
    *,
    staging: Path,
    desirable: Filtered | None = None,
) -> Exported:
    """Every result file but ``manifest.json``; without scores there is no ``scores.parquet``.

    ``desirable`` keeps the records whose answers are good ones, as a rule says; None without one. Where there
    is much to write, the run's workers make what the pieces add to the files, and this process writes it.
    """
    home, progress = context.home, context.progress
    artifacts_of(home).sweep_handover()
    progress.begin("export", filtered.counts.read, "records")
    held = Held.in_records(converted)
    some_have_rest = bool(exports.records) and any(
        read_artifact(piece.records, home, ["rest"])["rest"].null_count() < piece.counts.read
        for piece in converted.pieces
    )
    scored_pieces = scored.pieces if scored else (None,) * len(converted.pieces)
    verdicts = desirable.pieces if desirable else (None,) * len(converted.pieces)
    pieces = [
        PieceToExport(*found)
        for found in zip(converted.pieces, scored_pieces, filtered.pieces, verdicts, strict=True)
    ]
    rendering = Rendering(
        exports.records,
        Sides(exports.split, converted),
        scored.attributes if scored else (),
        converted.given,
        held,
        held.in_kept(filtered),
        some_have_rest,
    )
    with full_disk_named(staging), ExitStack() as stack:
        files = _Files(converted, scored, filtered, exports, rendering, staging, context, stack)
        if is_much(converted) and files.are_of_pieces and context.workers.are_several:
            _by_workers(pieces, rendering, files, context)
        else:
            for number, piece in enumerate(pieces):
                take = None if files.pairs is None else partial(files.pairs.add, number)
                for addition in additions(piece, rendering, home, take):
                    files.add(addition)
                progress.advance(piece.converted.counts.read)
        return files.finished(converted, home)


def _by_workers(
    pieces: Sequence[PieceToExport], rendering: Rendering, files: _Files, context: RunContext
) -> None:
    """Have workers make what the pieces add to the files, and add it in the order of the pieces."""
    files_of_stages = artifacts_of(context.home)
    with files_of_stages.handover() as folder:
        jobs = list(jobs_of(pieces, rendering, folder, context.home))

        def take(ready: AdditionsMade) -> None:
            for addition in ready.taken(files_of_stages):
                files.add(addition)
            context.progress.advance(sum(one.converted.counts.read for one in jobs[ready.number].pieces))

        context.do(jobs, stage="export", done=in_order(take), by=context.workers)


class _Files:
    """All result files of a run while they are written."""

    def __init__(
        self,
        converted: Converted,
        scored: Scored | None,
        filtered: Filtered,
        exports: ToWrite,
        rendering: Rendering,
        staging: Path,
        context: RunContext,
        stack: ExitStack,
    ) -> None:
        attributes, given, sides = rendering.attributes, rendering.given, rendering.sides
        self._staging = staging
        self._inputs = {file.path: file for file in converted.inputs}
        self._trained = {
            export.name: TrainerFile(
                export,
                staging,
                attributes,
                stack,
                sides=sides.names,
                ranked=sides.are_ranked,
                given=given,
                held=rendering.held if isinstance(export.row, EveryRecord) else rendering.held_by_kept,
                shard_bytes=exports.shard_bytes,
            )
            for export in exports.records
        }
        self.pairs = (
            PairFiles(exports, staging, attributes, stack, scored, rendering.held, sides)
            if exports.pairs
            else None
        )
        """The files of pairs, which are made of kept records; None where no export has any."""
        self._quarantine = _Quarantine(stack.enter_context(LinesFile(staging / QUARANTINE)), context)
        self._tables = {DECISIONS: TableFile(staging / DECISIONS, _DECISION_COLUMNS)}
        if scored is not None:
            columns = _score_columns(attributes, given, are_ordered=_are_ordered(filtered))
            self._tables[SCORES] = TableFile(staging / SCORES, columns)
        if any(piece.turns is not None for piece in filtered.pieces):
            self._tables[DECISIONS_TURNS] = TableFile(staging / DECISIONS_TURNS, _TURN_COLUMNS)

    @property
    def are_of_pieces(self) -> bool:
        """Whether each file is what pieces add to it, whoever makes that.

        Pairs are of several pieces. Where a table is cut into files depends on how a frame lies in memory.
        """
        return self.pairs is None and not any(one.is_numbered_table for one in self._trained.values())

    def add(self, addition: Addition) -> None:
        """Add what the next piece adds to a file."""
        table = addition.rows.table
        if addition.file == QUARANTINE and table is not None:
            self._quarantine.add(self._inputs[addition.of], table)
        elif addition.file in self._tables and table is not None:
            self._tables[addition.file].add(table)
        else:
            self._trained[addition.file].write(addition.rows, addition.side, addition.rank)

    def finished(self, converted: Converted, home: Home) -> Exported:
        """What was written, once every piece has been added."""
        self._quarantine.end()
        files = {QUARANTINE: self._quarantine.file.exported}
        files |= {name: table.finish() for name, table in self._tables.items()}
        if self.pairs is not None:
            files |= self.pairs.finish(converted, home)
        whole = [*self._trained.values(), *(self.pairs.trained if self.pairs is not None else ())]
        for done in whole:
            files |= done.finish()
        files |= companions(whole, self._staging, taken={*files})
        # What was dropped is nobody's training data, so it is no export in the manifest and the card.
        written = {done.export.name: done.written for done in whole if not done.takes_what_was_dropped}
        return Exported(files, written, self.pairs.summary if self.pairs is not None else None)


def kept_records(
    piece: ConvertedPiece,
    scored: ScoredPiece | None,
    filtered: FilteredPiece,
    attributes: tuple[str, ...],
    home: Home,
) -> Iterator[KeptRecords]:
    """Yield a piece's kept records, a bounded number at a time, as exports are given them."""
    judged = judged_records(read_artifact(piece.records, home, PLACE_IN_FILE + CONTENTS), filtered, home)
    judged = with_verdicts(judged, None, None, home)
    turns = scored_turns(piece, scored, filtered, attributes, home)
    return kept_blocks(piece.file, judged, turns, attributes, turns_decided(filtered, home))


def scores_of(converted: Converted, scored: Scored, filtered: Filtered, home: Home) -> pl.DataFrame:
    """A row a turn of the kept records, but for cut turns, in order, with ``scores.parquet``'s columns."""
    columns = _score_columns(scored.attributes, converted.given, are_ordered=_are_ordered(filtered))
    found = [pl.DataFrame(schema=columns)]
    pieces = zip(converted.pieces, scored.pieces, filtered.pieces, strict=True)
    for piece, scored_piece, filtered_piece in pieces:
        judged = judged_records(read_artifact(piece.records, home, PLACE_IN_FILE), filtered_piece, home)
        kept = judged.filter(pl.col("outcome") == "kept")
        turns = turns_left(
            scored_turns(piece, scored_piece, filtered_piece, scored.attributes, home),
            turns_decided(filtered_piece, home),
        )
        of_kept = turns.join(kept.select("row"), on="row", how="semi", maintain_order="left")
        in_place = placed(piece.file, with_given(named(of_kept, kept, scored.attributes), converted.given))
        found.append(in_place.select(pl.col(name).cast(kind) for name, kind in columns.items()))
    return pl.concat(found)


def _are_ordered(filtered: Filtered) -> bool:
    """Whether the run names what orders answers."""
    return any(piece.order is not None for piece in filtered.pieces)


def _score_columns(
    attributes: Sequence[str], given: Sequence[str], *, are_ordered: bool
) -> dict[str, type[pl.DataType]]:
    has_score = are_ordered or scalar_among(attributes) is not None
    return (
        _PLACE
        | {"turn": pl.UInt32}
        | dict.fromkeys(attributes, pl.Float32)
        | ({SCORE: pl.Float32} if has_score else {})
        | dict.fromkeys(given, pl.Float64)
        | {"reason": pl.String, "tokens_cut": pl.UInt32}
    )


class _Quarantine:
    """Gathers the quarantined records of a file, then reads their originals.

    All originals of a file are read in one pass, so that a compressed file is decompressed once. Memory holds
    only the places and reasons of records: those of one file, or of all files if workers read the files.
    """

    def __init__(self, file: LinesFile, context: RunContext) -> None:
        self.file = file
        self._context = context
        self._known = KnownFiles(context.home)
        self._input: InputFile | None = None
        self._gathered: list[pl.DataFrame] = []
        self._by_workers = reads_elsewhere(context)
        self._later: list[tuple[InputFile, pl.DataFrame]] = []

    def add(self, file: InputFile, bad: pl.DataFrame) -> None:
        """Take the quarantined records of a file's next piece."""
        if file != self._input:
            self._end_file()
            self._input = file
        self._gathered.append(bad)

    def end(self) -> None:
        """Write the remaining records."""
        self._end_file()
        if not self._later:
            return
        files, made = artifacts_of(self._context.home), dict[int, QuarantineMade]()

        def done(result: QuarantineMade) -> None:
            made[result.number] = result

        with files.handover() as folder:
            jobs = [
                QuarantineJob(number, file, records, folder, self._context.home)
                for number, (file, records) in enumerate(self._later)
                if is_remote(file.path)
            ]
            self._context.do(jobs, stage="quarantine", done=done, by=self._context.workers)
            for number, (file, records) in enumerate(self._later):
                if number in made:
                    self._write(made[number].file.parts(files))
                else:
                    self._write(quarantine_blocks(file, records, self._context.home, self._known))

    def _end_file(self) -> None:
        if self._gathered and self._input is not None:
            gathered, self._gathered = pl.concat(self._gathered), []
            if self._by_workers:
                self._later.append((self._input, gathered))
            else:
                self._write(quarantine_blocks(self._input, gathered, self._context.home, self._known))

    def _write(self, blocks: Iterable[bytes]) -> None:
        for block in blocks:
            self.file.write(block, block.count(b"\n"))
