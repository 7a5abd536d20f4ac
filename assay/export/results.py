"""The result files of a run, written piece by piece: what a stage holds in memory is one piece.

Whatever a run stops after, ``decisions.parquet`` names every record once with what became of it, and
``quarantine.jsonl`` gives the original of each that could not be processed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import polars as pl

from assay.convert import converted_lines
from assay.disk import full_disk_named, read_artifact
from assay.errors import AssayError
from assay.export.files import ExportedFile, LinesFile, TableFile
from assay.export.kept import KeptRecords, Lines
from assay.export.quarantine import quarantine_lines
from assay.filtering import NOT_STEERLM
from assay.home import Home
from assay.manifest import Converted, ConvertedPiece, Filtered, Scored

CONVERTED = "converted.jsonl"
QUARANTINE = "quarantine.jsonl"
DECISIONS = "decisions.parquet"
SCORES = "scores.parquet"

#: Kept records are given to the formats so many at a time.
_KEPT_AT_A_TIME = 2048
#: Lines are gathered to about this many bytes before they are written.
_WRITE_BYTES = 1 << 20

_PLACE: dict[str, type[pl.DataType]] = {"file": pl.String, "line": pl.UInt64, "part": pl.UInt32}
_DECISION_COLUMNS = _PLACE | {"outcome": pl.String, "reason": pl.String}
_RECORD_COLUMNS = ["row", "line", "part", "offset", "length", "outcome", "reason"]


class Writer(NamedTuple):
    """A file of lines, and what makes them of kept records."""

    file: str
    lines: Callable[[KeptRecords], Lines]


class _Judged(NamedTuple):
    """A piece's records with what finally became of them."""

    file: str
    records: pl.DataFrame
    """``row``, ``line``, ``part``, ``offset``, ``length``, ``outcome`` (``kept``, …), ``reason``."""


def write_results(
    converted: Converted,
    scored: Scored,
    filtered: Filtered,
    writers: Sequence[Writer],
    *,
    home: Home,
    staging: Path,
) -> dict[str, ExportedFile]:
    """The files of a run that scored, by name."""
    attributes = scored.attributes
    with full_disk_named(staging), ExitStack() as stack:
        trained = [stack.enter_context(LinesFile(staging / writer.file)) for writer in writers]
        quarantine = stack.enter_context(LinesFile(staging / QUARANTINE))
        decisions = TableFile(staging / DECISIONS, _DECISION_COLUMNS)
        scores = TableFile(
            staging / SCORES,
            _PLACE
            | {"turn": pl.UInt32}
            | dict.fromkeys(attributes, pl.Float32)
            | {"reason": pl.String, "tokens_cut": pl.UInt32},
        )
        pieces = zip(converted.pieces, scored.pieces, filtered.pieces, strict=True)
        for piece, scored_piece, filtered_piece in pieces:
            turns = read_artifact(
                scored_piece.scores, home, ["row", "turn", *attributes, "reason", "tokens_cut"]
            )
            records = read_artifact(piece.records, home, _RECORD_COLUMNS).drop("outcome", "reason")
            decided = read_artifact(filtered_piece.decisions, home, ["row", "outcome", "reason"])
            if decided.height != records.height or turns.height != piece.turn_count:
                raise AssayError(
                    f"{piece.file}: {records.height} records with {piece.turn_count} turns, but "
                    f"{decided.height} decisions and {turns.height} scores. Remove {home.artifacts} and run "
                    "again: scores are kept apart from it."
                )
            judged = records.join(decided, on="row", how="left", maintain_order="left")
            decisions.add(_placed(piece.file, judged))
            scores.add(_placed(piece.file, turns.join(records, on="row", how="left", maintain_order="left")))
            if writers:
                for kept in _kept(piece, judged, turns, attributes, home):
                    for writer, file in zip(writers, trained, strict=True):
                        file.write(*writer.lines(kept))
        _write_quarantine(quarantine, _judged_by(filtered, converted, home))
        files = {writer.file: file.exported for writer, file in zip(writers, trained, strict=True)}
        return files | {
            QUARANTINE: quarantine.exported,
            DECISIONS: decisions.finish(),
            SCORES: scores.finish(),
        }


def write_converted(converted: Converted, *, home: Home, staging: Path) -> dict[str, ExportedFile]:
    """The files of a run that stops after convert, by name."""
    with full_disk_named(staging), ExitStack() as stack:
        lines = stack.enter_context(LinesFile(staging / CONVERTED))
        quarantine = stack.enter_context(LinesFile(staging / QUARANTINE))
        decisions = TableFile(staging / DECISIONS, _DECISION_COLUMNS)
        for judged in _judged_by_convert(converted, home):
            decisions.add(_placed(judged.file, judged.records))
        for piece in converted.pieces:
            for block in _blocks(converted_lines(piece, home)):
                lines.write(*block)
        _write_quarantine(quarantine, _judged_by_convert(converted, home))
        return {
            CONVERTED: lines.exported,
            QUARANTINE: quarantine.exported,
            DECISIONS: decisions.finish(),
        }


def _judged_by(filtered: Filtered, converted: Converted, home: Home) -> Iterator[_Judged]:
    for piece, decided in zip(converted.pieces, filtered.pieces, strict=True):
        records = read_artifact(piece.records, home, _RECORD_COLUMNS).drop("outcome", "reason")
        decisions = read_artifact(decided.decisions, home, ["row", "outcome", "reason"])
        yield _Judged(piece.file, records.join(decisions, on="row", how="left", maintain_order="left"))


def _judged_by_convert(converted: Converted, home: Home) -> Iterator[_Judged]:
    """Yield the records as they leave the run: an ok one is kept if a SteerLM row can express it."""
    for piece in converted.pieces:
        records = read_artifact(piece.records, home, [*_RECORD_COLUMNS, "steerlm_gap"])
        is_ok, gap = pl.col("outcome") == "ok", pl.col("steerlm_gap")
        outcome = pl.when(gap.is_null()).then(pl.lit("kept")).otherwise(pl.lit("dropped"))
        yield _Judged(
            piece.file,
            records.with_columns(
                pl.when(is_ok).then(outcome).otherwise("outcome").alias("outcome"),
                pl.when(is_ok).then(pl.lit(f"{NOT_STEERLM}: ") + gap).otherwise("reason").alias("reason"),
            ),
        )


def _kept(
    piece: ConvertedPiece,
    judged: pl.DataFrame,
    turns: pl.DataFrame,
    attributes: tuple[str, ...],
    home: Home,
) -> Iterator[KeptRecords]:
    """Yield the piece's kept records, a bounded number at a time."""
    contents = read_artifact(piece.records, home, ["row", "messages", "rest"])
    kept = judged.filter(pl.col("outcome") == "kept").select("row", "line", "part")
    kept = kept.join(contents, on="row", how="left", maintain_order="left")
    scores = turns.select("row", "turn", *attributes)
    for few in kept.iter_slices(_KEPT_AT_A_TIME):
        of_them = scores.join(few.select("row"), on="row", how="semi", maintain_order="left")
        yield KeptRecords(piece.file, attributes, few, of_them)


def _placed(file: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(file).alias("file"))


def _write_quarantine(file: LinesFile, judged: Iterable[_Judged]) -> None:
    """Each input file is read once, so that a compressed one is decompressed once."""
    columns = ("line", "part", "offset", "length", "reason")
    for name, pieces in groupby(judged, key=lambda piece: piece.file):
        bad = pl.concat(
            [piece.records.filter(pl.col("outcome") == "quarantined").select(columns) for piece in pieces]
        )
        if bad.height:
            for block in _blocks(quarantine_lines(name, bad)):
                file.write(*block)


def _blocks(lines: Iterable[bytes]) -> Iterator[Lines]:
    """Join lines to blocks of about a megabyte."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _WRITE_BYTES:
            yield Lines(b"".join(block), len(block))
            block, size = [], 0
    if block:
        yield Lines(b"".join(block), len(block))
