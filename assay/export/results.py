"""The result files of a run, written piece by piece: what a stage holds in memory is one piece.

Whatever a run stops after, ``decisions.parquet`` names every record once with what became of it, and
``quarantine.jsonl`` gives the original of each that could not be processed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import polars as pl
import polars.selectors as cs

from assay.core.errors import AssayError
from assay.core.progress import SILENT, Progress
from assay.core.schema import SCORE
from assay.export.contract import EveryRecord, ToWrite, looks_at_items, rows_of_block
from assay.export.files import Exported, LinesFile, TableFile
from assay.export.kept import ORDER, Held, KeptRecords, items_of
from assay.export.pair_files import PairFiles
from assay.export.quarantine import quarantine_lines
from assay.export.sides import Sides
from assay.export.trained import TrainerFile, companions
from assay.export.turned import turned, turns_left
from assay.read.known_files import KnownFiles
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

QUARANTINE = "quarantine.jsonl"
DECISIONS = "decisions.parquet"
DECISIONS_TURNS = "decisions-turns.parquet"
SCORES = "scores.parquet"

#: Exports are given so many kept records at a time.
_KEPT_AT_A_TIME = 2048
#: Lines are gathered to about this many bytes before they are written.
_WRITE_BYTES = 1 << 20

_PLACE: dict[str, type[pl.DataType]] = {"file": pl.String, "line": pl.UInt64, "part": pl.UInt32}
_DECISION_COLUMNS = _PLACE | {"outcome": pl.String, "reason": pl.String}
_TURN_COLUMNS = _PLACE | {"turn": pl.UInt32, "outcome": pl.String, "reason": pl.String}
_PLACE_IN_FILE = ["row", "line", "part", "offset", "length"]
_CONTENTS = ["roles", "messages", "labels", "rest", "nemo_prompt", "tools"]


def write_results(
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    exports: ToWrite,
    *,
    home: Home,
    staging: Path,
    desirable: Filtered | None = None,
    progress: Progress = SILENT,
) -> Exported:
    """Every result file but ``manifest.json``; without scores there is no ``scores.parquet``.

    ``desirable`` keeps the records whose answers are good ones, as a rule says; None without one.
    """
    progress.begin("export", filtered.counts.read, "records")
    attributes = scored.attributes if scored else ()
    are_ordered = _are_ordered(filtered)
    inputs = {file.path: file for file in converted.inputs}
    held = Held.in_records(converted)
    some_have_rest = bool(exports.records) and any(
        read_artifact(piece.records, home, ["rest"])["rest"].null_count() < piece.counts.read
        for piece in converted.pieces
    )
    with full_disk_named(staging), ExitStack() as stack:
        sides = Sides(exports.split, converted)
        trained = [
            TrainerFile(
                export,
                staging,
                attributes,
                stack,
                sides=sides.names,
                ranked=sides.are_ranked,
                given=converted.given,
                held=held if isinstance(export.row, EveryRecord) else held.in_kept(filtered),
                shard_bytes=exports.shard_bytes,
            )
            for export in exports.records
        ]
        pairs = PairFiles(exports, staging, attributes, stack, scored, held) if exports.pairs else None
        quarantine = _Quarantine(stack.enter_context(LinesFile(staging / QUARANTINE)), home)
        decisions = TableFile(staging / DECISIONS, _DECISION_COLUMNS)
        scores = (
            TableFile(staging / SCORES, _score_columns(attributes, converted.given, are_ordered=are_ordered))
            if scored
            else None
        )
        by_turn = any(piece.turns is not None for piece in filtered.pieces)
        turn_decisions = TableFile(staging / DECISIONS_TURNS, _TURN_COLUMNS) if by_turn else None
        scored_pieces = scored.pieces if scored else (None,) * len(converted.pieces)
        pieces = zip(converted.pieces, scored_pieces, filtered.pieces, strict=True)
        for number, (piece, scored_piece, filtered_piece) in enumerate(pieces):
            columns = _PLACE_IN_FILE + (_CONTENTS if trained or pairs else [])
            judged = _judged(read_artifact(piece.records, home, columns), filtered_piece, home)
            decided = _turns_decided(filtered_piece, home)
            verdicts = desirable.pieces[number] if desirable else None
            judged = _with_verdicts(judged, decided, verdicts, home)
            turns = _turns(piece, scored_piece, filtered_piece, attributes, home)
            decisions.add(_placed(piece.file, judged))
            if scores is not None:
                named = _with_given(_named(turns, judged, attributes), converted.given)
                scores.add(_placed(piece.file, named))
            if turn_decisions is not None and decided is not None:
                turn_decisions.add(_placed(piece.file, _every_turn(turns, decided, judged)))
            quarantine.add(inputs[piece.file], judged)
            if trained or pairs:
                of_kept = [
                    one for one in trained if not (one.takes_every_record or one.takes_what_was_dropped)
                ]
                for block in _kept(piece.file, judged, turns, attributes, decided):
                    kept = block._replace(
                        some_have_rest=some_have_rest, given=converted.given, held=held.in_kept(filtered)
                    )
                    for side, of_side, rank in sides.divided(kept):
                        one_by_one = any(looks_at_items(one.export) for one in of_kept)
                        records = list(items_of(of_side)) if one_by_one else []
                        for one in of_kept:
                            one.write(rows_of_block(one.export, of_side, records), side, rank)
                    if pairs:
                        pairs.add(number, kept)
            if of_dropped := [one for one in trained if one.takes_what_was_dropped]:
                dropped = judged.filter(pl.col("outcome") == "dropped")
                for block in _blocks_of_records(piece.file, dropped, turns, attributes):
                    of_run = block._replace(some_have_rest=some_have_rest, given=converted.given, held=held)
                    for one in of_dropped:
                        one.write(rows_of_block(one.export, of_run))
            if of_all := [one for one in trained if one.takes_every_record]:
                for block in _blocks_of_records(piece.file, judged, turns, attributes):
                    of_run = block._replace(some_have_rest=some_have_rest, given=converted.given, held=held)
                    for one in of_all:
                        one.write(rows_of_block(one.export, of_run))
            progress.advance(piece.counts.read)
        quarantine.finish()
        files = {QUARANTINE: quarantine.file.exported, DECISIONS: decisions.finish()}
        if scores is not None:
            files[SCORES] = scores.finish()
        if turn_decisions is not None:
            files[DECISIONS_TURNS] = turn_decisions.finish()
        if pairs:
            files |= pairs.finish(converted, home)
        whole = [*trained, *(pairs.trained if pairs else ())]
        for done in whole:
            files |= done.finish()
        files |= companions(whole, staging, taken={*files})
        # What was dropped is nobody's training data, so it is no export in the manifest and the card.
        written = {done.export.name: done.written for done in whole if not done.takes_what_was_dropped}
    return Exported(files, written, pairs.summary if pairs else None)


def kept_records(
    piece: ConvertedPiece,
    scored: ScoredPiece | None,
    filtered: FilteredPiece,
    attributes: tuple[str, ...],
    home: Home,
) -> Iterator[KeptRecords]:
    """Yield a piece's kept records, a bounded number at a time, as exports are given them."""
    judged = _judged(read_artifact(piece.records, home, _PLACE_IN_FILE + _CONTENTS), filtered, home)
    judged = _with_verdicts(judged, None, None, home)
    turns = _turns(piece, scored, filtered, attributes, home)
    return _kept(piece.file, judged, turns, attributes, _turns_decided(filtered, home))


def scores_of(converted: Converted, scored: Scored, filtered: Filtered, home: Home) -> pl.DataFrame:
    """A row a turn of the kept records, but for cut turns, in order, with ``scores.parquet``'s columns."""
    columns = _score_columns(scored.attributes, converted.given, are_ordered=_are_ordered(filtered))
    found = [pl.DataFrame(schema=columns)]
    pieces = zip(converted.pieces, scored.pieces, filtered.pieces, strict=True)
    for piece, scored_piece, filtered_piece in pieces:
        judged = _judged(read_artifact(piece.records, home, _PLACE_IN_FILE), filtered_piece, home)
        kept = judged.filter(pl.col("outcome") == "kept")
        turns = turns_left(
            _turns(piece, scored_piece, filtered_piece, scored.attributes, home),
            _turns_decided(filtered_piece, home),
        )
        of_kept = turns.join(kept.select("row"), on="row", how="semi", maintain_order="left")
        named = _with_given(_named(of_kept, kept, scored.attributes), converted.given)
        placed = _placed(piece.file, named)
        found.append(placed.select(pl.col(name).cast(kind) for name, kind in columns.items()))
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


def _turns(
    piece: ConvertedPiece,
    scored: ScoredPiece | None,
    filtered: FilteredPiece,
    attributes: Sequence[str],
    home: Home,
) -> pl.DataFrame:
    """A piece's turns with their scores, and with ``ORDER`` where there is one; none before scoring."""
    if scored is None:
        return pl.DataFrame(schema={"row": pl.UInt32, "turn": pl.UInt32, "given": pl.String})
    turns = read_artifact(scored.scores, home, ["row", "turn", *attributes, "reason", "tokens_cut"])
    if turns.height != piece.turn_count:
        raise AssayError(
            f"{home.artifacts / scored.scores.path}: scores of {turns.height} turns where the piece has "
            f"{piece.turn_count}. Remove it and run again: it is made anew."
        )
    given = read_artifact(piece.turns, home, ["given"])
    turns = turns.hstack(given)
    if filtered.order is None:
        return turns
    order = read_artifact(filtered.order, home, ["row", "turn", "by"]).rename({"by": ORDER})
    return turns.join(order, on=["row", "turn"], how="left", maintain_order="left")


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
    scalar = scalar_among(attributes) or (ORDER if ORDER in turns.columns else None)
    named = turns if scalar is None else turns.with_columns(pl.col(scalar).cast(pl.Float32).alias(SCORE))
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


def _turns_decided(filtered: FilteredPiece, home: Home) -> pl.DataFrame | None:
    """What was decided on a piece's turns; None where records are kept whole."""
    if filtered.turns is None:
        return None
    return read_artifact(filtered.turns, home, ["row", "turn", "outcome", "reason"])


def _with_verdicts(
    records: pl.DataFrame, decided: pl.DataFrame | None, desirable: FilteredPiece | None, home: Home
) -> pl.DataFrame:
    """The records with ``desirable``: whether the rule on that keeps the last turn that is left; or null."""
    if desirable is None:
        return records.with_columns(pl.lit(None, pl.Boolean).alias("desirable"))
    verdicts = _turns_decided(desirable, home)
    if verdicts is None:
        kept = _judged(records.select("row"), desirable, home)["outcome"] == "kept"
        return records.with_columns(kept.alias("desirable"))
    last = turns_left(verdicts, decided).group_by("row", maintain_order=True).last()
    of_last = last.select("row", (pl.col("outcome") == "kept").alias("desirable"))
    return records.join(of_last, on="row", how="left", maintain_order="left")


def _every_turn(turns: pl.DataFrame, decided: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """A row for each of the turns, with its record's place. A turn that no rule judged is as its record."""
    return (
        turns.select("row", "turn")
        .join(decided, on=["row", "turn"], how="left", maintain_order="left")
        .join(
            judged.select("row", "line", "part", pl.col("outcome", "reason").name.suffix("_of_record")),
            on="row",
            how="left",
            maintain_order="left",
        )
        .with_columns(
            pl.when(pl.col("outcome").is_null()).then("reason_of_record").otherwise("reason").alias("reason"),
            pl.coalesce("outcome", "outcome_of_record").alias("outcome"),
        )
    )


def _kept(
    file: str,
    judged: pl.DataFrame,
    turns: pl.DataFrame,
    attributes: tuple[str, ...],
    decided: pl.DataFrame | None,
) -> Iterator[KeptRecords]:
    """Yield a piece's kept records, cut where a turn's decision says so, a bounded number at a time."""
    kept = judged.filter(pl.col("outcome") == "kept").select("row", "line", "part", "desirable", *_CONTENTS)
    yield from _blocks_of_records(file, turned(kept, decided), turns_left(turns, decided), attributes)


def _blocks_of_records(
    file: str, records: pl.DataFrame, turns: pl.DataFrame, attributes: tuple[str, ...]
) -> Iterator[KeptRecords]:
    """Yield the records, a bounded number at a time."""
    scores = turns.select("row", "turn", *attributes, "given", cs.by_name(ORDER, require_all=False))
    for few in records.iter_slices(_KEPT_AT_A_TIME):
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
        self._known = KnownFiles(home)
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
            gathered = pl.concat(self._gathered)
            for block in _blocks(quarantine_lines(self._input, gathered, self._home, self._known)):
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
