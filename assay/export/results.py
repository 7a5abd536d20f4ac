"""The result files of a run, written piece by piece: what a stage holds in memory is one piece.

Whatever a run stops after, ``decisions.parquet`` names every record once with what became of it, and
``quarantine.jsonl`` gives the original of each that could not be processed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
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
_PLACE_IN_FILE = ["row", "line", "part", "offset", "length"]
_CONTENTS = ["messages", "rest"]


class Writer(NamedTuple):
    """A file of lines, and what makes them of kept records."""

    file: str
    lines: Callable[[KeptRecords], Lines]


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
        quarantine = _Quarantine(stack.enter_context(LinesFile(staging / QUARANTINE)))
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
            records = read_artifact(piece.records, home, _PLACE_IN_FILE + (_CONTENTS if writers else []))
            decided = read_artifact(filtered_piece.decisions, home, ["row", "outcome", "reason"])
            if decided.height != records.height or turns.height != piece.turn_count:
                raise AssayError(
                    f"{piece.file}: {records.height} records with {piece.turn_count} turns, but "
                    f"{decided.height} decisions and {turns.height} scores. Remove {home.artifacts} and run "
                    "again: scores are kept apart from it."
                )
            judged = records.join(decided, on="row", how="left", maintain_order="left")
            decisions.add(_placed(piece.file, judged))
            places = records.select("row", "line", "part")
            scores.add(_placed(piece.file, turns.join(places, on="row", how="left", maintain_order="left")))
            quarantine.add(piece.file, judged)
            if writers:
                for kept in _kept(piece.file, judged, turns, attributes):
                    for writer, file in zip(writers, trained, strict=True):
                        file.write(*writer.lines(kept))
        quarantine.finish()
        files = {writer.file: file.exported for writer, file in zip(writers, trained, strict=True)}
        return files | {
            QUARANTINE: quarantine.file.exported,
            DECISIONS: decisions.finish(),
            SCORES: scores.finish(),
        }


def write_converted(converted: Converted, *, home: Home, staging: Path) -> dict[str, ExportedFile]:
    """The files of a run that stops after convert, by name."""
    with full_disk_named(staging), ExitStack() as stack:
        lines = stack.enter_context(LinesFile(staging / CONVERTED))
        quarantine = _Quarantine(stack.enter_context(LinesFile(staging / QUARANTINE)))
        decisions = TableFile(staging / DECISIONS, _DECISION_COLUMNS)
        for piece in converted.pieces:
            judged = _judged_by_convert(piece, home)
            decisions.add(_placed(piece.file, judged))
            quarantine.add(piece.file, judged)
            for block in _blocks(converted_lines(piece, home)):
                lines.write(*block)
        quarantine.finish()
        return {
            CONVERTED: lines.exported,
            QUARANTINE: quarantine.file.exported,
            DECISIONS: decisions.finish(),
        }


def _judged_by_convert(piece: ConvertedPiece, home: Home) -> pl.DataFrame:
    """The records as they leave the run: an ok one is kept if a SteerLM row can express it."""
    records = read_artifact(piece.records, home, [*_PLACE_IN_FILE, "outcome", "reason", "steerlm_gap"])
    is_ok, gap = pl.col("outcome") == "ok", pl.col("steerlm_gap")
    outcome = pl.when(gap.is_null()).then(pl.lit("kept")).otherwise(pl.lit("dropped"))
    return records.with_columns(
        pl.when(is_ok).then(outcome).otherwise("outcome").alias("outcome"),
        pl.when(is_ok).then(pl.lit(f"{NOT_STEERLM}: ") + gap).otherwise("reason").alias("reason"),
    )


def _kept(
    file: str, judged: pl.DataFrame, turns: pl.DataFrame, attributes: tuple[str, ...]
) -> Iterator[KeptRecords]:
    """Yield a piece's kept records, a bounded number at a time."""
    kept = judged.filter(pl.col("outcome") == "kept").select("row", "line", "part", *_CONTENTS)
    scores = turns.select("row", "turn", *attributes)
    for few in kept.iter_slices(_KEPT_AT_A_TIME):
        of_them = scores.join(few.select("row"), on="row", how="semi", maintain_order="left")
        yield KeptRecords(file, attributes, few, of_them)


def _placed(file: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(file).alias("file"))


class _Quarantine:
    """Gathers the quarantined records of a file, then reads their originals.

    In one go, so that a compressed file is decompressed once. Only places and reasons are held.
    """

    def __init__(self, file: LinesFile) -> None:
        self.file = file
        self._input = ""
        self._gathered: list[pl.DataFrame] = []

    def add(self, file: str, judged: pl.DataFrame) -> None:
        """Take the quarantined records of a file's next piece."""
        if file != self._input:
            self.finish()
            self._input = file
        bad = judged.filter(pl.col("outcome") == "quarantined")
        if bad.height:
            self._gathered.append(bad.select("line", "part", "offset", "length", "reason"))

    def finish(self) -> None:
        """Write what was gathered."""
        if self._gathered:
            for block in _blocks(quarantine_lines(self._input, pl.concat(self._gathered))):
                self.file.write(*block)
            self._gathered = []


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
