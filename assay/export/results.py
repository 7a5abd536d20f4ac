"""The result files of a run, written piece by piece: what a stage holds in memory is one piece.

Whatever a run stops after, ``decisions.parquet`` names every record once with what became of it, and
``quarantine.jsonl`` gives the original of each that could not be processed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from assay.core import steerlm
from assay.core.errors import AssayError
from assay.core.schema import SCORE, Message
from assay.export.files import ExportedFile, LinesFile, TableFile
from assay.export.kept import KeptRecords, Lines
from assay.export.quarantine import quarantine_lines
from assay.rewards.scalar import scalar_among
from assay.storage.disk import full_disk_named, read_artifact
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, FilteredPiece, InputFile, Scored

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
    scalar = scalar_among(attributes)
    inputs = {file.path: file for file in converted.inputs}
    with full_disk_named(staging), ExitStack() as stack:
        trained = [stack.enter_context(LinesFile(staging / writer.file)) for writer in writers]
        quarantine = _Quarantine(stack.enter_context(LinesFile(staging / QUARANTINE)), home)
        decisions = TableFile(staging / DECISIONS, _DECISION_COLUMNS)
        scores = TableFile(
            staging / SCORES,
            _PLACE
            | {"turn": pl.UInt32}
            | dict.fromkeys(attributes, pl.Float32)
            | ({} if scalar is None else {SCORE: pl.Float32})
            | {"reason": pl.String, "tokens_cut": pl.UInt32},
        )
        pieces = zip(converted.pieces, scored.pieces, filtered.pieces, strict=True)
        for piece, scored_piece, filtered_piece in pieces:
            turns = read_artifact(
                scored_piece.scores, home, ["row", "turn", *attributes, "reason", "tokens_cut"]
            )
            records = read_artifact(piece.records, home, _PLACE_IN_FILE + (_CONTENTS if writers else []))
            if turns.height != piece.turn_count:
                raise AssayError(
                    f"{home.artifacts / scored_piece.scores.path}: scores of {turns.height} turns where the "
                    f"piece has {piece.turn_count}. Remove it and run again: it is made anew."
                )
            judged = _judged(records, filtered_piece, home)
            decisions.add(_placed(piece.file, judged))
            places = records.select("row", "line", "part")
            named = turns if scalar is None else turns.with_columns(pl.col(scalar).alias(SCORE))
            scores.add(_placed(piece.file, named.join(places, on="row", how="left", maintain_order="left")))
            quarantine.add(inputs[piece.file], judged)
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


def write_converted(
    converted: Converted, filtered: Filtered, *, home: Home, staging: Path
) -> dict[str, ExportedFile]:
    """The files of a run that stops after convert, by name."""
    inputs = {file.path: file for file in converted.inputs}
    with full_disk_named(staging), ExitStack() as stack:
        lines = stack.enter_context(LinesFile(staging / CONVERTED))
        quarantine = _Quarantine(stack.enter_context(LinesFile(staging / QUARANTINE)), home)
        decisions = TableFile(staging / DECISIONS, _DECISION_COLUMNS)
        for piece, filtered_piece in zip(converted.pieces, filtered.pieces, strict=True):
            records = read_artifact(piece.records, home, [*_PLACE_IN_FILE, "messages", "labels"])
            judged = _judged(records, filtered_piece, home)
            decisions.add(_placed(piece.file, judged))
            quarantine.add(inputs[piece.file], judged)
            for block in _blocks(_as_converted(judged.filter(pl.col("outcome") == "kept"))):
                lines.write(*block)
        quarantine.finish()
        return {
            CONVERTED: lines.exported,
            QUARANTINE: quarantine.file.exported,
            DECISIONS: decisions.finish(),
        }


def _as_converted(kept: pl.DataFrame) -> Iterator[bytes]:
    """Yield the records as SteerLM lines with the labels they came with."""
    decode_messages = msgspec.json.Decoder(list[Message]).decode
    decode_labels = msgspec.json.Decoder(list[str | None]).decode
    for messages, labels in kept.select("messages", "labels").iter_rows():
        yield steerlm.to_line(decode_messages(messages), decode_labels(labels) if labels else None)


def _judged(records: pl.DataFrame, filtered: FilteredPiece, home: Home) -> pl.DataFrame:
    """The records with the ``outcome`` and ``reason`` that were decided."""
    decided = read_artifact(filtered.decisions, home, ["row", "outcome", "reason"])
    if decided.height != records.height:
        raise AssayError(
            f"{home.artifacts / filtered.decisions.path}: {decided.height} decisions on {records.height} "
            "records. Remove it and run again: it is made anew."
        )
    return records.join(decided, on="row", how="left", maintain_order="left")


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

    def __init__(self, file: LinesFile, home: Home) -> None:
        self.file = file
        self._home = home
        self._input: InputFile | None = None
        self._gathered: list[pl.DataFrame] = []

    def add(self, file: InputFile, judged: pl.DataFrame) -> None:
        """Take the quarantined records of a file's next piece."""
        if file != self._input:
            self.finish()
            self._input = file
        bad = judged.filter(pl.col("outcome") == "quarantined")
        if bad.height:
            self._gathered.append(bad.select("line", "part", "offset", "length", "reason"))

    def finish(self) -> None:
        """Write what was gathered."""
        if self._gathered and self._input is not None:
            for block in _blocks(quarantine_lines(self._input, pl.concat(self._gathered), self._home)):
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
