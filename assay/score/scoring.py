"""Plan the shards, have them scored, gather every turn's score."""

from __future__ import annotations

import dataclasses
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING

import polars as pl

from assay.core.errors import ClusterFault
from assay.core.progress import Progress, Silent
from assay.core.schema import WEIGHTED_REWARD
from assay.core.text import counted
from assay.rewards.protocol import OUT_OF_MEMORY, ModelSpec, Remark
from assay.rewards.remote.endpoints import ReadBlock
from assay.rewards.remote.replies import PASSING
from assay.rewards.weights import weights_bytes
from assay.score import card_warnings, plan, remarks, shard_size
from assay.score.segments import segments_of
from assay.score.shard import Shard, ShardWork
from assay.score.store import KEY, REASON, SEGMENT, TOKENS_CUT, ScoreStore, score_schema
from assay.score.workers.cluster import ClusterOptions, connected, on_gpus
from assay.storage.disk import full_disk_named, read_artifact
from assay.storage.home import Artifact, Home, digest_of_bytes, sweep, written_whole
from assay.storage.manifests import Converted, ConvertedPiece, Scored, ScoredPiece, reason_code

if TYPE_CHECKING:
    from assay.score.workers.dispatch import Fatal

STAGE_VERSION = 3

_KILLED = "killed_workers: every worker that took this turn died, most likely of memory"

#: Reasons that another attempt, with more memory or another day, could do away with. They are in no
#: segment, and a manifest that holds one is not taken from a cache.
TRANSIENT = frozenset({reason_code(_KILLED), OUT_OF_MEMORY}) | PASSING

_ROUNDS = 3

_UNSTORED = "unstored_reason"


@dataclass(frozen=True, slots=True)
class Preview:
    """What scoring would have to do."""

    records: int
    turns: int
    distinct_turns: int
    stored_turns: int
    """Distinct turns that the store already has."""
    planned_records: int
    estimated_tokens: int
    """Of the planned records, from their bytes."""
    requested_tokens: int
    """Of the turns that are not stored, each with all that precedes it: what a service would be sent."""

    @property
    def missing_turns(self) -> int:
        """Distinct turns that are not stored: as many requests, of a service."""
        return self.distinct_turns - self.stored_turns


@dataclass(frozen=True, slots=True)
class DeviceWork:
    """What one worker did in this run."""

    worker: str
    device: str
    shards: int
    turns: int
    tokens: int
    tokens_per_second: float
    """Of the time in which shards were out, loading the model included."""
    busy: float
    """The part of that time in which the model was at work, as the worker's process sees it."""


@dataclass(frozen=True, slots=True)
class ScoringWork:
    """What this run did for its scores, and what is to be told of them. In no cache."""

    turns_scored: int = 0
    """Distinct turns that the model rated in this run."""
    shards: tuple[ShardWork, ...] = ()
    devices: tuple[DeviceWork, ...] = ()
    resumed_plan: bool = False
    remarks: tuple[str, ...] = ()
    """What the model of these scores told, when this run or an earlier one opened it, of other numbers that
    it could have meant."""


def score_key(converted: Converted, model: ModelSpec) -> str:
    """What the score stage's result is kept under: everything that it depends on."""
    return digest_of_bytes(
        f"score {STAGE_VERSION}".encode(),
        converted.digest.encode(),
        model.fingerprint.encode(),
        *(f"{name}={weight!r}".encode() for name, weight in model.weights),
        *(part.encode() for part in card_warnings.depend_on(model)),
    )


def is_current(scored: Scored, home: Home) -> bool:
    """Whether a manifest still tells the truth: its files and segments intact, nothing worth a new try."""
    return (
        not TRANSIENT & scored.failed.keys()
        and all(piece.scores.is_intact(home) for piece in scored.pieces)
        and segments_of(home, scored.fingerprint).hold(scored.segments)
    )


def preview(converted: Converted, model: ModelSpec, *, home: Home) -> Preview:
    """What a run would score; nothing is written."""
    store = ScoreStore(home, model.fingerprint, model.attributes)
    store.open(warn=None)
    missing = plan.unstored(converted, store, home)
    turns = [group.turns.select(KEY, "text_bytes") for group in plan.grouped_turns(converted, home)]
    distinct = pl.concat(turns).unique(KEY) if turns else None
    records = missing.unique(["piece", "row"], keep="first", maintain_order=True)
    return Preview(
        records=converted.counts.ok,
        turns=sum(piece.turn_count for piece in converted.pieces),
        distinct_turns=distinct.height if distinct is not None else 0,
        stored_turns=distinct.height - missing.height if distinct is not None else 0,
        planned_records=records.height,
        estimated_tokens=int(records["record_tokens"].sum()),
        requested_tokens=_tokens_of(distinct, missing) if distinct is not None else 0,
    )


def _tokens_of(turns: pl.DataFrame, missing: pl.DataFrame) -> int:
    sent = turns.join(missing, on=KEY, how="semi")["text_bytes"]
    return int((sent // plan.BYTES_PER_TOKEN + 1).sum())


def score(
    converted: Converted,
    model: ModelSpec,
    *,
    home: Home,
    cluster: ClusterOptions,
    shard_tokens: int | None = None,
    progress: Progress = Silent(),  # noqa: B008
    read_block: ReadBlock | None = None,
    heed: Callable[[], None] = lambda: None,
) -> tuple[Scored, ScoringWork]:
    """The scores of every turn, and what this run did for them.

    What the store lacks is planned, the plan written down, and its shards scored; a plan that an
    earlier run left for the same records is finished first. ``shard_tokens`` is the size of a new plan's
    shards; None has it estimated. Where nothing is missing, no worker is started and no model loaded.
    ``read_block`` looks up the secret block that holds a service's key.
    ``heed`` is called about every second while scores are waited for; what it raises ends the scoring, and
    what is scored by then is stored.
    """
    store = ScoreStore(home, model.fingerprint, model.attributes)
    shards: list[ShardWork] = []
    unscored: dict[bytes, str] = {}
    resumed = False
    at_work = 0.0
    with store.planning(progress.say, heed) as heed_all, full_disk_named(home.root):
        former = remarks_again(model, home, progress.say)
        store.open(warn=progress.say)
        for _ in range(_ROUNDS):
            missing = _without(plan.unstored(converted, store, home), unscored)
            if missing.is_empty():
                break
            written = plan.existing(converted, model, home, progress.say)
            pending = (
                written.turns().join(missing, on=KEY, how="semi", maintain_order="left") if written else None
            )
            if pending is None or pending.is_empty():
                size = shard_tokens or _shard_tokens(missing, model, cluster)
                written = plan.write(missing, converted, model, home, shard_tokens=size)
                pending = written.turns()
            else:
                resumed = True
                progress.say(
                    f"finishing an earlier run's plan first: {pending.height} of its turns are not scored yet"
                )
            progress.begin("score", pending.height, "turns")
            if model.endpoint is None:
                pending_shards = _shards(pending, converted)
                at_work += _run(
                    pending_shards,
                    pending.height,
                    model,
                    home,
                    cluster,
                    progress,
                    shards,
                    unscored,
                    former,
                    heed_all,
                )
            else:
                from assay.score.requests import request_scores

                request_scores(
                    _shards(pending, converted),
                    model,
                    home,
                    read_block=read_block,
                    done=shards.append,
                    lost=unscored.__setitem__,
                    progress=progress,
                    heed=heed_all,
                )
            store.open(warn=progress.say)
        else:
            left = _without(plan.unstored(converted, store, home), unscored)
            if not left.is_empty():
                raise ClusterFault(
                    f"{left.height} turns still have no score after {_ROUNDS} attempts; is {store.place} "
                    "the same place for every worker?"
                )
        scored = _gather(converted, model, store, unscored, home)
    for name, count in scored.warnings.items():
        if count:
            progress.say(f"warning: {card_warnings.told(model)[name]}: {counted(count, 'conversations')}")
    work = ScoringWork(
        turns_scored=sum(shard.turns - shard.failed for shard in shards),
        shards=tuple(sorted(shards, key=lambda shard: shard.shard)),
        devices=_devices(shards, at_work),
        resumed_plan=resumed,
        remarks=tuple(dict.fromkeys([*former, *remarks.sentences(_remarks(shards), model)])),
    )
    return scored, work


def remarks_again(model: ModelSpec, home: Home, say: Callable[[str], None]) -> tuple[str, ...]:
    """What earlier runs were told of the model of the stored scores; each is a warning of this run too."""
    again = remarks.sentences(remarks.kept(model, home, say), model)
    for sentence in again:
        say(f"warning: {sentence}")
    return again


def _remarks(shards: Iterable[ShardWork]) -> tuple[Remark, ...]:
    """What any of their models told, once each."""
    return tuple(dict.fromkeys(remark for shard in shards for remark in shard.remarks))


@contextmanager
def _told_when_stopped(finished: Sequence[ShardWork], turns: int, progress: Progress) -> Iterator[None]:
    """Within, a signal that ends the run has it say how many of so many turns are stored by then.

    That is at least what ``finished`` holds: workers store a shard before they say so.
    """
    before = len(finished)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        stored = sum(shard.turns for shard in finished[before:])
        progress.say(f"score: at least {stored:,} of {counted(turns, 'turns')} are stored")
        raise


def _devices(shards: Sequence[ShardWork], seconds: float) -> tuple[DeviceWork, ...]:
    """What each worker did in the ``seconds`` in which shards were out."""
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


def _without(turns: pl.DataFrame, unscored: dict[bytes, str]) -> pl.DataFrame:
    return turns.filter(~pl.col(KEY).is_in(list(unscored))) if unscored else turns


def _shard_tokens(missing: pl.DataFrame, model: ModelSpec, cluster: ClusterOptions) -> int:
    """Estimated tokens of a shard of these turns, for the devices that will score them."""
    total = int(missing.unique(["piece", "row"], keep="first")["record_tokens"].sum())
    device = shard_size.CPU
    if model.endpoint is None and on_gpus(cluster):
        device = shard_size.GPU
    return shard_size.tokens_a_shard(total, model, device)


def _shards(pending: pl.DataFrame, converted: Converted) -> Iterator[Shard]:
    for (number,), members in pending.group_by("shard", maintain_order=True):
        pieces = members["piece"].unique(maintain_order=True)
        records = members.unique(["piece", "row"], keep="first")
        yield Shard(
            number=int(str(number)),
            members=members.select("piece", "row", "turn", KEY),
            record_files={piece: converted.pieces[piece].records.path for piece in pieces},
            estimated_tokens=int(records["record_tokens"].sum()),
        )


def _run(
    shards: Iterator[Shard],
    turns: int,
    model: ModelSpec,
    home: Home,
    cluster: ClusterOptions,
    progress: Progress,
    finished: list[ShardWork],
    unscored: dict[bytes, str],
    former: Sequence[str],
    heed: Callable[[], None],
) -> float:
    """The seconds in which shards of so many turns were out; work goes to ``finished``.

    Turns that are to be tried another day go to ``unscored``. ``former`` remarks have been told.
    """
    from assay.score.workers.dispatch import Fatal, dispatch

    def done(result: ShardWork | Fatal) -> None:
        if isinstance(result, Fatal):
            turns = result.shard.members
            unscored.update(dict.fromkeys(turns[KEY], _KILLED))
            progress.say(f"shard {result.shard.number}: one turn kills its workers and is left out")
            progress.advance(turns.height, failed=turns.height)
        else:
            told = _remarks(finished)
            finished.append(result)
            if told != _remarks(finished):
                remarks.keep(_remarks(finished), model, home)
                for sentence in remarks.sentences(result.remarks, model):
                    if sentence not in (*former, *remarks.sentences(told, model)):
                        progress.say(f"warning: {sentence}")
            unscored.update(result.unstored)
            progress.advance(
                result.turns,
                failed=result.failed,
                tokens=result.tokens,
                worker=result.worker,
                busy_seconds=result.busy_seconds,
            )

    sized = dataclasses.replace(cluster, model_bytes=weights_bytes(model))
    with connected(sized, say=progress.say) as client:
        began = time.monotonic()
        with _told_when_stopped(finished, turns, progress):
            dispatch(client, shards, model, home, done=done, say=progress.say, heed=heed)
        return time.monotonic() - began


def _gather(
    converted: Converted, model: ModelSpec, store: ScoreStore, unscored: dict[bytes, str], home: Home
) -> Scored:
    """Write every piece's scores beside its turns. ``unscored``: reasons that are in no segment, by key."""
    folder = home.artifacts / "score" / score_key(converted, model)
    columns = list(score_schema(model.columns))
    unstored_reasons = pl.DataFrame(
        {KEY: list(unscored), _UNSTORED: list(unscored.values())},
        schema={KEY: pl.Binary, _UNSTORED: pl.String},
    )
    pieces: list[ScoredPiece] = []
    failed: dict[str, int] = {}
    segments: set[str] = set()
    warnings = Counter(dict.fromkeys(card_warnings.told(model), 0))
    keys = []
    sweep(folder)
    for group in plan.grouped_turns(converted, home):
        stored = store.look_up(group.turns[KEY].unique())
        segments.update(stored[SEGMENT].unique())
        joined = (
            group.turns.join(stored, on=KEY, how="left", maintain_order="left")
            .join(unstored_reasons, on=KEY, how="left", maintain_order="left")
            .with_columns(
                pl.coalesce(_UNSTORED, REASON).alias(REASON),
                pl.col(TOKENS_CUT).fill_null(0),
                *_weighted(model),
            )
        )
        for reason in joined[REASON].drop_nulls():
            failed[reason_code(reason)] = failed.get(reason_code(reason), 0) + 1
        keys.append(group.turns.select(KEY))
        parts = joined.partition_by("piece", as_dict=True)
        for number in group.pieces:
            part = parts.get((number,), joined.clear())
            part = card_warnings.marked(part, model, partial(_messages, converted.pieces[number], home))
            warnings.update(card_warnings.counted(part, model))
            part = part.select("row", "turn", *columns, *card_warnings.told(model))
            path = folder / f"piece-{number:05}.parquet"
            with written_whole(path) as temporary:
                part.write_parquet(temporary, compression_level=3)
            pieces.append(ScoredPiece(Artifact.of(path, home)))
    return Scored(
        fingerprint=model.fingerprint,
        attributes=model.columns,
        pieces=tuple(pieces),
        turns=sum(piece.turn_count for piece in converted.pieces),
        distinct_turns=pl.concat(keys)[KEY].n_unique() if keys else 0,
        failed=dict(sorted(failed.items())),
        segments=tuple(sorted(segments)),
        warnings=dict(warnings),
    )


def _messages(piece: ConvertedPiece, home: Home) -> pl.DataFrame:
    """Row and messages of the records of a piece that have turns."""
    records = read_artifact(piece.records, home, ["row", "outcome", "messages"])
    return records.filter(pl.col("outcome") == "ok").select("row", "messages")


def _weighted(model: ModelSpec) -> list[pl.Expr]:
    """The scalar made of the attributes, summed in float64; null where a turn has no score."""
    if not model.weights:
        return []
    parts = [pl.col(name).cast(pl.Float64) * weight for name, weight in model.weights]
    return [reduce(operator.add, parts).cast(pl.Float32).alias(WEIGHTED_REWARD)]
