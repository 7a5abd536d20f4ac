"""The narrow tables that the page is computed from: a row a turn and a row a record, without texts.

They are written piece by piece into a folder of the run's own, so that memory holds one piece of texts at a
time, whatever the size of the data. What is then computed reads a few columns of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from assay.core.jobs import IN_THIS_PROCESS, AtWork, in_order, killer
from assay.export.files import TableFile
from assay.read.languages import language_of
from assay.storage.artifacts import Artifacts, artifacts_of, read_artifact
from assay.storage.disk import full_disk_named
from assay.storage.handed_over import HandedOver, handing_over, table_in
from assay.storage.home import Home
from assay.storage.manifests import Converted, ConvertedPiece, Filtered, FilteredPiece, Scored, ScoredPiece
from assay.storage.piece_jobs import in_jobs, is_much
from assay.storage.scratch import own_folder
from assay.storage.stage import RunContext

KEPT, DROPPED, QUARANTINED = "kept", "dropped", "quarantined"

_RECORDS = {
    "piece": pl.UInt32,
    "row": pl.UInt32,
    "source": pl.UInt32,
    "line": pl.UInt64,
    "part": pl.UInt32,
    "outcome": pl.String,
    "side": pl.String,
    "prompt": pl.UInt64,
}
_OF_ANSWERS = {"row": pl.UInt32, "turn": pl.UInt32, "characters": pl.UInt32, "language": pl.String}
#: To find a language takes longer than all else: it is found of so many records, evenly spread.
LANGUAGES_OF = 2_000
_SIDE = "assay_side"
#: A table of so many bytes is held in memory.
_HELD_BYTES = 4 << 20


class _Said(msgspec.Struct):
    content: str | None = None


_DECODE_SAID = msgspec.json.Decoder(list[_Said]).decode


@dataclass(frozen=True, slots=True)
class Measures:
    """The two tables, and what their numbers stand for."""

    turns: pl.LazyFrame
    """A row a turn of the records that could be read, in input order: ``piece``, ``row``, ``source``,
    ``line``, ``part``, ``turn``, ``is_last``, ``outcome``, ``side``, ``characters`` (of the answer),
    ``language`` (ISO 639-1, of the last turns of some records; else null), ``prompt`` and ``answer`` (the
    first 8 bytes of their keys; ``prompt`` is of the last turn), a Float32 for each of ``attributes`` (null
    without a score), a Float64 for each of ``given``, a Boolean for each of ``flags``."""
    records: pl.LazyFrame
    """A row a record: ``piece``, ``row``, ``source``, ``line``, ``part``, ``outcome``, ``side`` (``chosen``
    or ``rejected``, as the row came; else null), ``prompt``."""
    sources: tuple[str, ...]
    """The input files, which ``source`` counts."""
    attributes: tuple[str, ...]
    """Empty where nothing was scored."""
    given: tuple[str, ...]
    flags: tuple[str, ...]

    def of_turns(self, *columns: str) -> pl.LazyFrame:
        """These columns of every turn, to be read when something is computed of them."""
        return self.turns.select(columns)

    def of_last_turns(self, *columns: str) -> pl.LazyFrame:
        """These columns of the turns that decide: the last of each record, where every turn has a score."""
        return self.turns.filter("is_last", pl.col("outcome") != QUARANTINED).select(columns)

    def of_records(self, *columns: str) -> pl.LazyFrame:
        """These columns of every record."""
        return self.records.select(columns)


def table(path: Path) -> pl.LazyFrame:
    """The table in a file; in memory if it is small, for it is asked a hundred times."""
    if path.stat().st_size <= _HELD_BYTES:
        return pl.read_parquet(path).lazy()
    return pl.scan_parquet(path, glob=False)


def read(rows: pl.LazyFrame) -> pl.DataFrame:
    """The rows, computed block by block: of a table of any size, memory holds a few blocks and the result."""
    return rows.collect(engine="streaming")


@contextmanager
def measured_turns(
    converted: Converted, scored: Scored | None, filtered: Filtered, context: RunContext
) -> Iterator[Measures]:
    """Yield the tables of a run. They are gone when the context ends."""
    home = context.home
    sources = tuple(dict.fromkeys(piece.file for piece in converted.pieces))
    attributes = scored.attributes if scored else ()
    given, flags = converted.given, tuple(scored.warnings if scored else ())
    of_turn = {
        **{name: kind for name, kind in _RECORDS.items() if name != "outcome"},
        **{"turn": pl.UInt32, "is_last": pl.Boolean, "outcome": pl.String, "characters": pl.UInt32},
        **{"language": pl.String, "answer": pl.UInt64},
        **dict.fromkeys(attributes, pl.Float32),
        **dict.fromkeys(given, pl.Float64),
        **dict.fromkeys(flags, pl.Boolean),
    }
    scored_pieces = scored.pieces if scored else (None,) * len(converted.pieces)
    every, seen = max(1, converted.counts.ok // LANGUAGES_OF), 0
    context.progress.begin("report", filtered.counts.read, "records")
    with own_folder() as folder, full_disk_named(folder):
        turns = TableFile(folder / "turns.parquet", of_turn)
        records = TableFile(folder / "records.parquet", _RECORDS)
        pieces = []
        numbered = {file: number for number, file in enumerate(sources)}
        found = zip(converted.pieces, scored_pieces, filtered.pieces, strict=True)
        for number, (piece, scored_piece, filtered_piece) in enumerate(found):
            place = _Place(number, numbered[piece.file], seen)
            pieces.append(_PieceToMeasure(place, piece, scored_piece, filtered_piece))
            seen += piece.counts.ok
        wanted = _Wanted(every, attributes, flags, given)
        files = artifacts_of(home)
        is_shared = is_much(converted) and context.workers.are_several
        with files.handover() if is_shared else nullcontext() as handover:
            jobs = [
                MeasureJob(number, pieces[group.start : group.stop], wanted, handover, home)
                for number, group in enumerate(in_jobs(converted.pieces))
            ]

            def take(ready: MeasuredPieces) -> None:
                for of_records, of_turns in ready.taken(files):
                    records.add(of_records)
                    turns.add(of_turns)
                context.progress.advance(jobs[ready.number].records)

            by = context.workers if is_shared else IN_THIS_PROCESS
            context.do(jobs, stage="report", done=in_order(take), by=by)
        turns.finish()
        records.finish()
        yield Measures(
            table(folder / "turns.parquet"),
            table(folder / "records.parquet"),
            sources,
            attributes,
            given,
            flags,
        )


class _Place(NamedTuple):
    """Where a piece stands in its run."""

    piece: int
    source: int
    seen: int
    """How many readable records came before it."""


class _PieceToMeasure(NamedTuple):
    place: _Place
    piece: ConvertedPiece
    scored: ScoredPiece | None
    filtered: FilteredPiece


class _Wanted(NamedTuple):
    """What is measured of every piece."""

    every: int
    """A language is found of one in so many readable records."""
    attributes: tuple[str, ...]
    flags: tuple[str, ...]
    given: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeasuredPieces:
    """The tables of consecutive pieces."""

    number: int
    tables: Sequence[pl.DataFrame] | HandedOver
    """Two tables a piece: its rows of ``Measures.records``, then its rows of ``Measures.turns``."""

    def taken(self, files: Artifacts) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Yield the two tables of each piece. AssayError where a worker's file is not on this machine."""
        found = self.tables
        tables = map(table_in, found.parts(files)) if isinstance(found, HandedOver) else iter(found)
        return zip(tables, tables, strict=True)


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """Consecutive pieces, as workers are handed them."""

    number: int
    """Its place among the jobs, which is that of its pieces in the run."""
    pieces: Sequence[_PieceToMeasure]
    wanted: _Wanted
    handover: str | None
    """The folder for what workers hand to the run, below the artifacts' folder or address."""
    home: Home

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"report on {self.pieces[0].piece.file}, job {self.number}"

    @property
    def weight(self) -> int:
        """All weigh the same: they are handed out in the order in which their results are needed."""
        return 1

    @property
    def records(self) -> int:
        """How many records the pieces hold."""
        return sum(one.piece.counts.read for one in self.pieces)

    def sent(self) -> MeasureJob:
        """The job for another process, which may be on another machine."""
        return replace(self, home=self.home.sent())

    def done_by(self, at: AtWork) -> MeasuredPieces:
        """The tables of the pieces. A worker hands them over in a file."""
        home = self.home.here()
        if self.home.host is None or self.handover is None:
            return MeasuredPieces(self.number, list(self._tables(home, at)))
        with handing_over(f"{self.handover}/{self.number}.tables", home) as file:
            for table in self._tables(home, at):
                file.add(table)
        return MeasuredPieces(self.number, file.handed_over)

    def _tables(self, home: Home, at: AtWork) -> Iterator[pl.DataFrame]:
        for one in self.pieces:
            at.check()
            yield from _tables(one, self.wanted, home)

    def halves(self) -> Sequence[MeasureJob]:
        """Nothing: a job's tables come in one piece."""
        return ()

    def of_a_killer(self) -> MeasuredPieces:
        """ClusterFault: there is no page without these records."""
        raise killer(self.name)


def _tables(given: _PieceToMeasure, wanted: _Wanted, home: Home) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A piece's rows of the two tables."""
    place, piece = given.place, given.piece
    of_records, of_answers = _records(piece, given.filtered, home, wanted.every, place.seen)
    of_turns = _turns(piece, given.scored, wanted.attributes, wanted.flags, home)
    literals = [
        pl.lit(place.piece, pl.UInt32).alias("piece"),
        pl.lit(place.source, pl.UInt32).alias("source"),
    ]
    joined = of_turns.join(of_records, on="row", how="left", maintain_order="left").join(
        of_answers, on=["row", "turn"], how="left", maintain_order="left"
    )
    lacking = [pl.lit(None, pl.Float64).alias(name) for name in wanted.given if name not in piece.given]
    return of_records.with_columns(literals), joined.with_columns(*literals, *lacking)


def _records(
    piece: ConvertedPiece, filtered: FilteredPiece, home: Home, every: int, seen: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records of a piece, and what is measured of each answer of those that could be read.

    A language is found of ``every`` so many readable records, of which ``seen`` came before this piece.
    """
    columns = ["row", "line", "part", "outcome", "roles", "messages", "prompt_key", "rest"]
    found = read_artifact(piece.records, home, columns)
    readable = found.filter(pl.col("outcome") == "ok").select("row", "roles", "messages")
    rows: list[int] = []
    turns: list[int] = []
    characters: list[int] = []
    languages: list[str | None] = []
    for number, (row, roles, messages) in enumerate(readable.iter_rows(), start=seen):
        said = _DECODE_SAID(messages)
        answers = [one.content for one, letter in zip(said, roles, strict=True) if letter == "a"]
        rows += [row] * len(answers)
        turns += range(len(answers))
        characters += [len(text or "") for text in answers]
        languages += [None] * len(answers)
        if answers and number % every == 0:
            languages[-1] = language_of(answers[-1] or "")
    columns_of_answers = (rows, turns, characters, languages)
    of_answers = pl.DataFrame(dict(zip(_OF_ANSWERS, columns_of_answers, strict=True)), schema=_OF_ANSWERS)
    decided = read_artifact(filtered.decisions, home, ["row", "outcome"])
    records = found.select(
        "row", "line", "part", _first_bytes("prompt_key").alias("prompt"), _side().alias("side")
    )
    return records.join(decided, on="row", how="left", maintain_order="left"), of_answers


def _turns(
    piece: ConvertedPiece,
    scored: ScoredPiece | None,
    attributes: tuple[str, ...],
    flags: tuple[str, ...],
    home: Home,
) -> pl.DataFrame:
    """The turns of a piece, with their scores and what people gave them."""
    turns = read_artifact(piece.turns, home, ["row", "turn", "key", "given"])
    last = pl.col("turn") == pl.col("turn").max().over("row")
    found = turns.select("row", "turn", _first_bytes("key").alias("answer"), last.alias("is_last"), "given")
    if scored is not None:
        scores = read_artifact(scored.scores, home, ["row", "turn", *attributes, *flags])
        # Scores that are no numbers are as good as none.
        finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in attributes]
        found = found.join(scores.with_columns(finite), on=["row", "turn"], how="left", maintain_order="left")
    if not piece.given:
        return found.drop("given")
    decoded = pl.col("given").str.json_decode(pl.Struct(dict.fromkeys(piece.given, pl.Float64)))
    return found.with_columns(decoded).unnest("given")


def _first_bytes(key: str) -> pl.Expr:
    """The first eight bytes of a 128-bit hash: enough to tell a million texts apart."""
    return pl.col(key).bin.slice(0, 8).bin.reinterpret(dtype=pl.UInt64, endianness="little")


def _side() -> pl.Expr:
    """Which side of a person's pair a record is; null for one that is none."""
    marked = pl.when(pl.col("rest").str.contains(_SIDE, literal=True)).then(pl.col("rest"))
    side = marked.str.json_path_match(f"$.{_SIDE}")
    return pl.when(side.is_in(["chosen", "rejected"])).then(side)
