"""The result files of a run, written piece by piece: what a stage holds in memory is one piece.

Whatever a run stops after, ``decisions.parquet`` names every record once with what became of it, and
``quarantine.jsonl`` gives the original of each that could not be processed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import polars as pl

from assay.core.errors import AssayError
from assay.core.schema import SCORE
from assay.export.contract import Export, lines_of
from assay.export.files import Exported, LinesFile, TableFile, write_file
from assay.export.kept import KeptRecords
from assay.export.quarantine import quarantine_lines
from assay.rewards.scalar import scalar_among
from assay.storage.disk import full_disk_named, read_artifact
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
from assay.storage.run_manifest import RUN_MANIFEST, ExportedFile, Written

QUARANTINE = "quarantine.jsonl"
DECISIONS = "decisions.parquet"
SCORES = "scores.parquet"

#: Exports are given so many kept records at a time.
_KEPT_AT_A_TIME = 2048
#: Lines are gathered to about this many bytes before they are written.
_WRITE_BYTES = 1 << 20

_PLACE: dict[str, type[pl.DataType]] = {"file": pl.String, "line": pl.UInt64, "part": pl.UInt32}
_DECISION_COLUMNS = _PLACE | {"outcome": pl.String, "reason": pl.String}
_PLACE_IN_FILE = ["row", "line", "part", "offset", "length"]
_CONTENTS = ["roles", "messages", "labels", "rest", "nemo_prompt", "tools"]


def write_results(
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    exports: Sequence[Export],
    *,
    home: Home,
    staging: Path,
) -> Exported:
    """Every result file but ``manifest.json``; without scores there is no ``scores.parquet``."""
    attributes = scored.attributes if scored else ()
    inputs = {file.path: file for file in converted.inputs}
    with full_disk_named(staging), ExitStack() as stack:
        trained = [
            _Trained(export, stack.enter_context(LinesFile(staging / export.file))) for export in exports
        ]
        quarantine = _Quarantine(stack.enter_context(LinesFile(staging / QUARANTINE)), home)
        decisions = TableFile(staging / DECISIONS, _DECISION_COLUMNS)
        scores = TableFile(staging / SCORES, _score_columns(attributes, converted.given)) if scored else None
        scored_pieces = scored.pieces if scored else (None,) * len(converted.pieces)
        pieces = zip(converted.pieces, scored_pieces, filtered.pieces, strict=True)
        for piece, scored_piece, filtered_piece in pieces:
            columns = _PLACE_IN_FILE + (_CONTENTS if trained else [])
            judged = _judged(read_artifact(piece.records, home, columns), filtered_piece, home)
            turns = _turns(piece, scored_piece, attributes, home)
            decisions.add(_placed(piece.file, judged))
            if scores is not None:
                named = _with_given(_named(turns, judged, attributes), converted.given)
                scores.add(_placed(piece.file, named))
            quarantine.add(inputs[piece.file], judged)
            if trained:
                for kept in _kept(piece.file, judged, turns, attributes):
                    for one in trained:
                        one.add(kept)
        quarantine.finish()
        files = {one.export.file: one.file.exported for one in trained}
        files |= {QUARANTINE: quarantine.file.exported, DECISIONS: decisions.finish()}
        if scores is not None:
            files[SCORES] = scores.finish()
        written = {one.export.name: one.written for one in trained}
        for one in trained:
            files |= _companions(one.export, one.written, staging, taken=files.keys())
    return Exported(files, written)


def kept_records(
    piece: ConvertedPiece,
    scored: ScoredPiece | None,
    filtered: FilteredPiece,
    attributes: tuple[str, ...],
    home: Home,
) -> Iterator[KeptRecords]:
    """Yield a piece's kept records, a bounded number at a time, as exports are given them."""
    judged = _judged(read_artifact(piece.records, home, _PLACE_IN_FILE + _CONTENTS), filtered, home)
    return _kept(piece.file, judged, _turns(piece, scored, attributes, home), attributes)


class _Trained:
    """An export's file while it is written."""

    def __init__(self, export: Export, file: LinesFile) -> None:
        self.export = export
        self.file = file
        self._left_out: Counter[str] = Counter()
        self._without: Counter[str] = Counter()

    def add(self, kept: KeptRecords) -> None:
        """Write what the export takes of a block."""
        lines = lines_of(self.export, kept)
        self.file.write(lines.data, lines.rows)
        self._left_out.update(lines.left_out)
        self._without.update(lines.without)

    @property
    def written(self) -> Written:
        """What was written so far."""
        left_out, without = (dict(sorted(counts.items())) for counts in (self._left_out, self._without))
        return Written(self.export.file, self.file.rows, left_out, without)


def _companions(
    export: Export, written: Written, staging: Path, *, taken: Collection[str]
) -> dict[str, ExportedFile]:
    """The files beside an export's data, written; AssayError where one has no name of its own."""
    files: dict[str, ExportedFile] = {}
    for name, data in export.companion(written).items():
        if name in {*taken, RUN_MANIFEST, ""} or Path(name).name != name:
            raise AssayError(f"export {export.name}: {name!r} is no name for a file beside {export.file}")
        files[name] = write_file(staging / name, data)
    return files


def _score_columns(attributes: Sequence[str], given: Sequence[str]) -> dict[str, type[pl.DataType]]:
    return (
        _PLACE
        | {"turn": pl.UInt32}
        | dict.fromkeys(attributes, pl.Float32)
        | ({} if scalar_among(attributes) is None else {SCORE: pl.Float32})
        | dict.fromkeys(given, pl.Float64)
        | {"reason": pl.String, "tokens_cut": pl.UInt32}
    )


def _turns(
    piece: ConvertedPiece, scored: ScoredPiece | None, attributes: Sequence[str], home: Home
) -> pl.DataFrame:
    """A piece's turns with their scores; none where nothing was scored."""
    if scored is None:
        return pl.DataFrame(schema={"row": pl.UInt32, "turn": pl.UInt32, "given": pl.String})
    turns = read_artifact(scored.scores, home, ["row", "turn", *attributes, "reason", "tokens_cut"])
    if turns.height != piece.turn_count:
        raise AssayError(
            f"{home.artifacts / scored.scores.path}: scores of {turns.height} turns where the piece has "
            f"{piece.turn_count}. Remove it and run again: it is made anew."
        )
    given = read_artifact(piece.turns, home, ["given"])
    return turns.hstack(given)


def _with_given(turns: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The turns with a column for each ``given.NAME``."""
    if not names:
        return turns
    numbers = [{} if text is None else msgspec.json.decode(text) for text in turns["given"]]
    return turns.with_columns(
        pl.Series(name, [one.get(name) for one in numbers], pl.Float64) for name in names
    )


def _named(turns: pl.DataFrame, records: pl.DataFrame, attributes: Sequence[str]) -> pl.DataFrame:
    """The turns with their record's place, and with ``score`` where the model has one number."""
    scalar = scalar_among(attributes)
    named = turns if scalar is None else turns.with_columns(pl.col(scalar).alias(SCORE))
    return named.join(records.select("row", "line", "part"), on="row", how="left", maintain_order="left")


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
    scores = turns.select("row", "turn", *attributes, "given")
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


def _blocks(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the lines in blocks of about a megabyte, each with how many they are."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _WRITE_BYTES:
            yield b"".join(block), len(block)
            block, size = [], 0
    if block:
        yield b"".join(block), len(block)
