"""Every piece's scores, gathered from the store into a file of the run.

Groups of pieces are independent of each other, so workers may gather them.
"""

from __future__ import annotations

import operator
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial, reduce

import polars as pl

from assay.core.errors import ClusterFault
from assay.core.jobs import IN_THIS_PROCESS, AtWork, killer
from assay.core.schema import WEIGHTED_REWARD
from assay.read.kept_languages import languages_of
from assay.rewards.spec import ModelSpec
from assay.score import card_warnings, plan
from assay.score.store import KEY, REASON, SEGMENT, TOKENS_CUT, ScoreStore, score_schema
from assay.storage.artifacts import artifacts_of, read_artifact
from assay.storage.buckets import Distinct
from assay.storage.disk import full_disk_named
from assay.storage.home import Home
from assay.storage.manifests import Converted, ConvertedPiece, Scored, ScoredPiece, reason_code
from assay.storage.private import make_private
from assay.storage.scratch import own_folder
from assay.storage.stage import RunContext

#: So many turns to gather are worth starting workers for: 6 CPU seconds, of which two workers save nearly
#: half. To start them takes 2.2 (measured, ``benchmarks/grow.py``'s data).
_WORTH_WORKERS_TURNS = 1 << 22
#: Of workers that run already, so many times fewer are worth asking.
_TIMES_FEWER_IF_RUNNING = 4

#: Workers share so many groups of turns, or somewhat more. A single process looks up as many turns at once as
#: planning does: each group is looked up in the whole store.
_GROUPS = 16
#: The least turns of a group.
_LEAST_TURNS = 1 << 16

_UNSTORED = "unstored_reason"


def gathered(
    converted: Converted,
    model: ModelSpec,
    folder: str,
    unscored: Mapping[bytes, str],
    store: ScoreStore,
    context: RunContext,
) -> Scored:
    """The scores of all turns, a file for every piece in a ``folder`` of artifacts.

    ``unscored``: by key, reasons that are in no segment. ``store`` is open, and holds all other turns.
    """
    # Make it before any worker does: this machine may remember for a while that it was not there.
    artifacts_of(context.home).begin(folder)
    turns = sum(piece.turn_count for piece in converted.pieces)
    workers = context.workers
    worth = _WORTH_WORKERS_TURNS // (_TIMES_FEWER_IF_RUNNING if workers.are_running else 1)
    is_shared = turns >= worth and workers.are_several
    size = min(max(_LEAST_TURNS, turns // _GROUPS), plan.LOOKUP_TURNS) if is_shared else plan.LOOKUP_TURNS
    by_run = secrets.token_hex(8)
    jobs = [
        GatherJob(
            found.start,
            converted.pieces[found.start : found.stop],
            model,
            folder,
            unscored,
            context.home,
            by_run,
            store,
        )
        for found in plan.groups_of_pieces(converted.pieces, most_turns=size)
    ]
    pieces: dict[int, tuple[ScoredPiece, ...]] = {}
    segments: set[str] = set()
    failed: Counter[str] = Counter()
    warnings = Counter(dict.fromkeys(card_warnings.sentences(model), 0))
    make_private(context.home.plans)
    with own_folder(context.home.plans) as own:
        distinct = Distinct(own, turns)

        def done(one: _Gathered) -> None:
            distinct.add(one.keys)
            pieces[one.first] = one.pieces
            segments.update(one.segments)
            failed.update(one.failed)
            warnings.update(one.warnings)

        by = workers if is_shared else IN_THIS_PROCESS
        context.do(jobs, stage="gather", done=done, by=by)
        distinct_turns = distinct.count()
    return Scored(
        fingerprint=model.fingerprint,
        attributes=model.columns,
        pieces=tuple(piece for _, some in sorted(pieces.items()) for piece in some),
        turns=turns,
        distinct_turns=distinct_turns,
        failed=dict(sorted(failed.items())),
        segments=tuple(sorted(segments)),
        warnings=dict(warnings),
    )


@dataclass(frozen=True, slots=True)
class _Gathered:
    """The scores of consecutive pieces."""

    first: int
    pieces: tuple[ScoredPiece, ...]
    keys: pl.Series
    """The distinct keys of their turns."""
    failed: Counter[str]
    segments: tuple[str, ...]
    warnings: Counter[str]


@dataclass(frozen=True, slots=True)
class GatherJob:
    """Consecutive pieces whose scores are gathered together, as workers are handed them."""

    first: int
    """The number of the first piece."""
    pieces: Sequence[ConvertedPiece]
    model: ModelSpec
    folder: str
    unscored: Mapping[bytes, str]
    home: Home
    by_run: str
    """Tells apart the stores that a worker opens for this run and for others."""
    store: ScoreStore | None = None
    """The store as this process has opened it; None in a worker."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"gather {self.pieces[0].file}, piece {self.first}"

    @property
    def weight(self) -> int:
        """Turns."""
        return sum(piece.turn_count for piece in self.pieces)

    def sent(self) -> GatherJob:
        """The job without the store, which each worker opens once."""
        return replace(self, store=None, home=self.home.sent())

    def done_by(self, at: AtWork) -> _Gathered:
        """Write a file of scores for each of the pieces. ClusterFault where a turn has no score by now."""
        home, model = self.home.here(), self.model
        store = self.store
        if store is None:
            store = _opened(home, model.fingerprint, model.attributes, self.by_run)
        group = plan.turns_of(self.pieces, self.first, home)
        keys = group[KEY].unique()
        stored = store.look_up(keys)
        joined = (
            group.join(stored, on=KEY, how="left", maintain_order="left")
            .join(_reasons(self.unscored), on=KEY, how="left", maintain_order="left")
            .with_columns(
                pl.coalesce(_UNSTORED, REASON).alias(REASON),
                pl.col(TOKENS_CUT).fill_null(0),
                *_weighted(model),
            )
        )
        lost = joined.filter(pl.col(SEGMENT).is_null() & pl.col(_UNSTORED).is_null()).height
        if lost:
            raise ClusterFault(
                f"{store.place}: {lost} turns of {self.name} have no score, though they were stored: check "
                "that this is the same place for every worker, and run again"
            )
        with full_disk_named(home.root):
            pieces, warnings = self._written(joined, home, at)
        return _Gathered(
            self.first,
            pieces,
            keys,
            Counter(map(reason_code, joined[REASON].drop_nulls())),
            tuple(stored[SEGMENT].unique()),
            warnings,
        )

    def _written(
        self, joined: pl.DataFrame, home: Home, at: AtWork
    ) -> tuple[tuple[ScoredPiece, ...], Counter[str]]:
        model, files = self.model, artifacts_of(home)
        columns = [*score_schema(model.columns), *card_warnings.sentences(model)]
        parts = joined.partition_by("piece", as_dict=True)
        warnings: Counter[str] = Counter()
        pieces = []
        for number, piece in enumerate(self.pieces, self.first):
            at.check()
            part = card_warnings.marked(
                parts.get((number,), joined.clear()),
                model,
                partial(_messages, piece, home),
                partial(languages_of, piece, home),
            )
            warnings.update(card_warnings.conversations_warned_of(part, model))
            path = f"{self.folder}/piece-{number:05}.parquet"
            table = part.select("row", "turn", *columns)
            pieces.append(ScoredPiece(files.keep_table(table, path, compression_level=3)))
        return tuple(pieces), warnings

    def halves(self) -> Sequence[GatherJob]:
        """Two jobs with half of the pieces each; nothing of one piece."""
        middle = len(self.pieces) // 2
        if not middle:
            return ()
        return (
            replace(self, pieces=self.pieces[:middle]),
            replace(self, first=self.first + middle, pieces=self.pieces[middle:]),
        )

    def of_a_killer(self) -> _Gathered:
        """ClusterFault: a run that cannot gather a piece's scores ends."""
        raise killer(self.name)


@lru_cache(maxsize=1)
def _opened(home: Home, fingerprint: str, attributes: tuple[str, ...], by_run: str) -> ScoreStore:
    """A worker's store, with the segments that are there when this run gathers."""
    return ScoreStore(home, fingerprint, attributes).open()


def _reasons(unscored: Mapping[bytes, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {KEY: list(unscored), _UNSTORED: list(unscored.values())},
        schema={KEY: pl.Binary, _UNSTORED: pl.String},
    )


def _messages(piece: ConvertedPiece, home: Home) -> pl.DataFrame:
    """Row and messages, as a model is shown them, of the records of a piece that have turns."""
    records = read_artifact(piece.records, home, ["row", "outcome", "messages", "shown"])
    shown = pl.coalesce("shown", "messages").alias("messages")
    return records.filter(pl.col("outcome") == "ok").select("row", shown)


def _weighted(model: ModelSpec) -> list[pl.Expr]:
    """The weighted sum of the attributes, computed in float64; null where a turn has no score."""
    if not model.factors:
        return []
    parts = [pl.col(name).cast(pl.Float64) * factor for name, factor in model.factors]
    return [reduce(operator.add, parts).cast(pl.Float32).alias(WEIGHTED_REWARD)]
