"""Plan the shards (groups of turns), have them scored, and gather every turn's score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from assay.core.digests import digest_of_bytes
from assay.core.errors import ClusterFault
from assay.core.text import counted
from assay.rewards.endpoint import Usage
from assay.rewards.protocol import OUT_OF_MEMORY, Remark
from assay.rewards.remote.endpoints import ReadBlock
from assay.rewards.remote.replies import PASSING
from assay.rewards.spec import ModelSpec
from assay.score import card_warnings, plan, remarks
from assay.score.gathering import gathered
from assay.score.segments import segments_of
from assay.score.shard import Shard, ShardWork
from assay.score.store import KEY, ScoreStore
from assay.score.ways import KILLED, way_of
from assay.storage.artifacts import are_intact
from assay.storage.buckets import Parts
from assay.storage.disk import full_disk_named
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored, reason_code
from assay.storage.private import make_private
from assay.storage.run_manifest import DeviceWork
from assay.storage.scratch import own_folder
from assay.storage.stage import RunContext, Stage
from assay.workers.cluster import ClusterOptions

#: Reasons that another attempt may remove: with more memory, or on another day. They are in no segment, and
#: a stage's manifest that holds one is not reused.
TRANSIENT = frozenset({reason_code(KILLED), OUT_OF_MEMORY}) | PASSING

_ROUNDS = 3

#: Where the files of scores lie, below the artifacts.
_FOLDER = "score"


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would have to score."""

    records: int
    turns: int
    distinct_turns: int
    stored_turns: int
    """Distinct turns that the store already has."""
    planned_records: int
    estimated_tokens: int
    """Of the planned records, estimated from their bytes."""
    usage: Usage | None
    """What a service would be sent: each turn with all messages before it. None where workers score."""

    @property
    def missing_turns(self) -> int:
        """Distinct turns that have no score. A service gets a request for each."""
        return self.distinct_turns - self.stored_turns


@dataclass(frozen=True, slots=True)
class ScoringWork:
    """What this run did to get its scores, and what a person should know about them. Never cached."""

    turns_scored: int = 0
    """Distinct turns that the model rated in this run."""
    shards: tuple[ShardWork, ...] = ()
    devices: tuple[DeviceWork, ...] = ()
    resumed_plan: bool = False
    remarks: tuple[str, ...] = ()
    """The model's remarks: other ways to read it, found when this run or an earlier one opened it."""


@dataclass(frozen=True, slots=True)
class ToScore:
    """What to score, with which model, and by which workers."""

    converted: Converted
    model: ModelSpec
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    shard_tokens: int | None = None
    """The size of a new plan's shards. None: it is estimated from the model and the device."""
    read_block: ReadBlock | None = None
    """Looks up the secret block that holds a service's key."""


def _key(given: ToScore) -> str:
    """A digest of all that the scores depend on: the records and the model, but not the workers."""
    model = given.model
    return digest_of_bytes(
        given.converted.digest.encode(),
        model.fingerprint.encode(),
        *(f"{name}={factor!r}".encode() for name, factor in model.factors),
        *(part.encode() for part in card_warnings.depend_on(model)),
    )


def _is_current(given: ToScore, scored: Scored, home: Home) -> bool:
    """Whether its files are intact, its segments are there, and no failed turn is worth an attempt."""
    return (
        not TRANSIENT & scored.failed.keys()
        and are_intact((piece.scores for piece in scored.pieces), home)
        and segments_of(home, scored.fingerprint).hold(scored.segments)
    )


def preview(converted: Converted, model: ModelSpec, *, home: Home) -> Preview:
    """What a run would score; nothing is written."""
    store = ScoreStore(home, model.fingerprint, model.attributes)
    store.open()
    with own_folder() as folder, full_disk_named(folder):
        missing = plan.unstored(converted, store, home, folder)
        distinct = plan.distinct_turns(converted, home, folder)
    return Preview(
        records=converted.counts.ok,
        turns=sum(piece.turn_count for piece in converted.pieces),
        distinct_turns=distinct,
        stored_turns=distinct - missing.turns,
        planned_records=missing.records,
        estimated_tokens=missing.record_tokens,
        usage=model.usage(missing.turns, missing.turn_tokens),
    )


def score(given: ToScore, context: RunContext) -> Scored:
    """The scores of every turn. Reports what this run did to ``progress.did``, as a ``ScoringWork``.

    It first finishes a plan that an earlier run left for the same records. Then it plans the turns that the
    store lacks, writes the plan to disk, and has its shards scored. Where nothing is missing, no worker is
    started and no model loaded. If ``leave_if_unwanted`` raises, scoring ends, and what is scored is stored.
    """
    model = given.model
    store = ScoreStore(context.home, model.fingerprint, model.attributes)
    with store.planning(context) as context, full_disk_named(context.home.root):
        attempt = _Attempt(given, context, former_remarks(model, context))
        store.open(context.progress)
        for _ in range(_ROUNDS):
            if not attempt.score_missing(store):
                break
            store.open(context.progress)
        else:
            left = attempt.missing_turns(store)
            if left:
                raise ClusterFault(
                    f"{left} turns still have no score after {_ROUNDS} attempts: check that "
                    f"{store.place} is the same place for every worker"
                )
        folder = f"{_FOLDER}/{SCORE.digest(given)}"
        scored = gathered(given.converted, model, folder, attempt.unscored, store, context)
    for name, count in scored.warnings.items():
        if count:
            context.say(f"warning: {card_warnings.sentences(model)[name]}: {counted(count, 'conversations')}")
    context.progress.did(attempt.work())
    return scored


SCORE = Stage("score", 4, Scored, _key, _is_current, score)


def former_remarks(model: ModelSpec, context: RunContext) -> tuple[str, ...]:
    """The remarks that earlier runs made about the model of the stored scores. Each is shown as a warning."""
    again = remarks.sentences(remarks.kept(model, context), model)
    for sentence in again:
        context.say(f"warning: {sentence}")
    return again


class _Attempt:
    """One run's work on the turns that have no score yet."""

    def __init__(self, given: ToScore, context: RunContext, former: Sequence[str]) -> None:
        """``former``: remarks that this run has shown already."""
        self._given = given
        self._way = way_of(given.model, cluster=given.cluster, read_block=given.read_block)
        self._context = context
        self._former = former
        self._shards: list[ShardWork] = []
        self._remarks: dict[Remark, None] = {}
        self._resumed = False
        self._seconds_at_work = 0.0
        self.unscored: dict[bytes, str] = {}
        """By key, why turns have no score though another day may give one. They are in no segment."""

    def score_missing(self, store: ScoreStore) -> bool:
        """Have scored what the store lacks, first of an earlier plan. False where it lacks nothing."""
        with self._folder() as folder:
            missing = self._missing(store, folder)
            if not missing.turns:
                return False
            pending = self._of_earlier_plan(store, folder)
            if pending is not None:
                self._score(pending, pending.height)
            else:
                self._score(self._new_plan(missing, folder).parts(), missing.turns)
        return True

    def missing_turns(self, store: ScoreStore) -> int:
        """How many turns the store lacks, without those that this run has given up."""
        with self._folder() as folder:
            return self._missing(store, folder).turns

    def _folder(self) -> AbstractContextManager[Path]:
        """A folder for what planning does not hold in memory."""
        plans = self._context.home.plans
        make_private(plans)
        return own_folder(plans)

    def _missing(self, store: ScoreStore, folder: Path) -> plan.MissingTurns:
        home = self._context.home
        return plan.unstored(self._given.converted, store, home, folder, given_up=self.unscored)

    def _of_earlier_plan(self, store: ScoreStore, folder: Path) -> Parts | None:
        """The turns of an earlier run's plan that are not scored yet; None where there are none."""
        earlier = plan.existing(self._given.converted, self._given.model, self._context)
        if earlier is None:
            return None
        pending = Parts(folder, "pending")
        for part in earlier.parts():
            left = part.join(store.stored(part[KEY].unique()), on=KEY, how="anti", maintain_order="left")
            left = left.filter(~pl.col(KEY).is_in(list(self.unscored)))
            if not left.is_empty():
                pending.add(left)
        if not pending.height:
            return None
        self._resumed = True
        self._context.say(
            f"finishing an earlier run's plan first: {pending.height} of its turns are not scored yet"
        )
        return pending

    def _new_plan(self, missing: plan.MissingTurns, folder: Path) -> plan.Plan:
        size = self._given.shard_tokens or self._way.shard_tokens(missing.record_tokens)
        converted, model, home = self._given.converted, self._given.model, self._context.home
        return plan.write(missing.parts, converted, model, home, folder, shard_tokens=size)

    def _score(self, pending: Iterable[pl.DataFrame], turns: int) -> None:
        """Have these turns scored, shard by shard."""
        self._context.progress.begin("score", turns, "turns")
        self._seconds_at_work += self._way.score(
            shards_of(pending, self._given.converted),
            turns,
            self._context,
            done=self._note,
            lost=self.unscored.__setitem__,
        )

    def _note(self, result: ShardWork) -> None:
        """Note the result of a shard."""
        self._shards.append(result)
        self._note_remarks(result)
        self.unscored.update(result.unstored)

    def _note_remarks(self, result: ShardWork) -> None:
        """Store the remarks that no earlier shard made, and show those that were not shown yet."""
        new = [remark for remark in result.remarks if remark not in self._remarks]
        if not new:
            return
        model = self._given.model
        shown = (*self._former, *remarks.sentences(self._remarks, model))
        self._remarks.update(dict.fromkeys(new))
        remarks.keep(self._remarks, model, self._context)
        for sentence in remarks.sentences(new, model):
            if sentence not in shown:
                self._context.say(f"warning: {sentence}")

    def work(self) -> ScoringWork:
        """What this run did."""
        return ScoringWork(
            turns_scored=sum(shard.turns - shard.failed for shard in self._shards),
            shards=tuple(sorted(self._shards, key=lambda shard: shard.shard)),
            devices=_devices(self._shards, self._seconds_at_work),
            resumed_plan=self._resumed,
            remarks=tuple(
                dict.fromkeys([*self._former, *remarks.sentences(self._remarks, self._given.model)])
            ),
        )


def _devices(shards: Sequence[ShardWork], seconds: float) -> tuple[DeviceWork, ...]:
    """What each worker did in the ``seconds`` in which workers had shards."""
    by_worker: dict[tuple[str, str], list[ShardWork]] = {}
    for shard in shards:
        by_worker.setdefault((shard.worker, shard.device), []).append(shard)
    return tuple(
        DeviceWork(
            worker=worker,
            device=device,
            shards=len(theirs),
            turns=sum(shard.turns for shard in theirs),
            tokens=(tokens := sum(shard.tokens for shard in theirs)),
            tokens_per_second=tokens / seconds,
            busy=sum(shard.busy_seconds for shard in theirs) / seconds,
        )
        for (worker, device), theirs in sorted(by_worker.items())
        if seconds and device
    )


def shards_of(parts: Iterable[pl.DataFrame], converted: Converted) -> Iterator[Shard]:
    """Yield the shards of planned turns, which come some at a time, in the order of their shards."""
    for members in _by_shard(parts):
        pieces = members["piece"].unique(maintain_order=True)
        records = members.unique(["piece", "row"], keep="first")
        yield Shard(
            number=int(members["shard"][0]),
            members=members.select("piece", "row", "turn", KEY),
            record_files={piece: converted.pieces[piece].records for piece in pieces},
            estimated_tokens=int(records["record_tokens"].sum()),
        )


def _by_shard(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the rows of each shard. A part may end in the middle of one."""
    last: pl.DataFrame | None = None
    for part in parts:
        *whole, last = (part if last is None else pl.concat([last, part])).partition_by(
            "shard", maintain_order=True
        )
        yield from whole
    if last is not None:
        yield last
