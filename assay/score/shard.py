"""Score one shard, a group of turns that is scored and stored together. Dask runs this in a worker."""

from __future__ import annotations

import dataclasses
import io
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec
import polars as pl

from assay.core.errors import AssayError
from assay.core.jobs import AtWork
from assay.core.schema import Conversation, turn_keys
from assay.rewards.batch_reports import reporting
from assay.rewards.leaving import checking
from assay.rewards.protocol import (
    OUT_OF_MEMORY,
    OnDevice,
    Remark,
    Remarking,
    Request,
    RewardModel,
    TurnScore,
)
from assay.rewards.spec import LocalSpec
from assay.score.open_model import using
from assay.score.store import KEY, ScoreStore
from assay.storage.artifacts import artifacts_of
from assay.storage.conversations import conversation_of
from assay.storage.disk import damage_named
from assay.storage.home import Artifact, Home


@dataclass(frozen=True, slots=True)
class Shard:
    """Some planned turns, to be scored together."""

    number: int
    members: pl.DataFrame
    """Columns piece, row, turn, key; a row for each turn, in this order."""
    record_files: dict[int, Artifact]
    """For each piece, the file of its records."""
    estimated_tokens: int
    carried: bytes = b""
    """The records themselves, for a worker that cannot read those files: Arrow of piece, row, messages,
    tools."""

    @property
    def records(self) -> pl.DataFrame:
        """The distinct records: piece, row."""
        return self.members.select("piece", "row").unique(maintain_order=True)

    def halves(self) -> tuple[Shard, Shard]:
        """Two shards with half of the records each. A shard of one record is split into halves of its turns.

        The earlier turns of a record have a shorter text: they may succeed where the later ones fail.
        """
        records = self.records
        if records.height > 1:
            middle = records.height // 2
            parts = [
                self.members.join(part, on=["piece", "row"], how="semi", maintain_order="left")
                for part in (records.head(middle), records.slice(middle))
            ]
        else:
            middle = self.members.height // 2
            parts = [self.members.head(middle), self.members.slice(middle)]
        first, second = (
            dataclasses.replace(self, members=part, estimated_tokens=self.estimated_tokens // 2)
            for part in parts
        )
        return first, second

    def carrying(self, home: Home) -> Shard:
        """This shard with its records inside, for a worker that shares no file system with this process."""
        written = io.BytesIO()
        frames = [
            _texts(self.record_files[int(str(piece))], home, members["row"]).select(
                pl.lit(piece, pl.UInt32).alias("piece"), "row", "messages", "tools"
            )
            for (piece,), members in self.members.group_by("piece", maintain_order=True)
        ]
        pl.concat(frames).write_ipc(written, compression="zstd")
        return dataclasses.replace(self, record_files={}, carried=written.getvalue())


@dataclass(frozen=True, slots=True)
class ShardWork:
    """How much work one shard was, and where its scores are."""

    shard: int
    segment: str
    """Empty where no outcome is stored."""
    turns: int
    failed: int
    tokens: int
    """Of each conversation up to and including its last planned turn; each token counts once."""
    seconds: float
    worker: str
    device: str = ""
    """The device that the worker computes on."""
    busy_seconds: float = 0.0
    """How long the device worked for this shard."""
    remarks: tuple[Remark, ...] = ()
    """The model's remarks: other ways to read it, which give other scores."""
    unstored: dict[bytes, str] = field(default_factory=dict)
    """By key, why turns have no score though another attempt may give one. They are in no segment."""


@dataclass(frozen=True, slots=True)
class Fatal:
    """A shard of one turn that killed every worker it reached."""

    shard: Shard


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A shard to score with a model, as workers are handed it."""

    shard: Shard
    model: LocalSpec
    home: Home

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"shard {self.shard.number}"

    @property
    def weight(self) -> int:
        """Estimated tokens."""
        return self.shard.estimated_tokens

    def sent(self) -> ShardJob:
        """The job with its records, where only scores are on S3: the worker may have no file of the run."""
        if self.home.score_store is None or self.home.is_in_buckets:
            return dataclasses.replace(self, home=self.home.sent())
        return dataclasses.replace(self, shard=self.shard.carrying(self.home))

    def done_by(self, at: AtWork) -> ShardWork | Fatal:
        """Score the shard in this process."""
        return score_shard(self.shard, self.model, self.home.here(), check=at.check, heard=at.heard)

    def halves(self) -> Sequence[ShardJob]:
        """Two jobs with half of the records each, or of the turns of one record; nothing of one turn."""
        if self.shard.members.height < 2:
            return ()
        return [dataclasses.replace(self, shard=half) for half in self.shard.halves()]

    def of_a_killer(self) -> ShardWork | Fatal:
        """The turn that kills its workers gets no score."""
        return Fatal(self.shard)


def score_shard(
    shard: Shard,
    spec: LocalSpec,
    home: Home,
    *,
    check: Callable[[], None] = lambda: None,
    heard: Callable[[int, int], None] = lambda turns, tokens: None,
) -> ShardWork:
    """Score the shard, write its scores as one new segment of the store, and return what work that was.

    It may be done twice: the same turns in the same order give the same segment under the same name.
    ``check`` is called before every batch. If it raises, scoring ends and nothing is written. ``heard`` is
    called after every batch, with its turns and its tokens.
    """
    began = time.monotonic()
    scores: dict[bytes, TurnScore] = {}
    tokens = 0
    requests, keys = requested(shard, home)
    with checking(check), reporting(heard):
        scored = using(spec, partial(_scored, requests))
    for asked_keys, outcomes in zip(keys, scored.outcomes, strict=True):
        scores.update(zip(asked_keys, outcomes, strict=True))
        tokens += max((outcome.tokens or 0 for outcome in outcomes), default=0)
    unstored = {
        key: outcome.reason
        for key, outcome in scores.items()
        if outcome.reason is not None and outcome.reason.startswith(OUT_OF_MEMORY)
    }
    kept = {key: outcome for key, outcome in scores.items() if key not in unstored}
    store = ScoreStore(home, spec.fingerprint, spec.attributes)
    segment = store.write(kept) if kept else ""
    return ShardWork(
        shard=shard.number,
        segment=segment,
        unstored=unstored,
        turns=len(scores),
        failed=sum(outcome.values is None for outcome in scores.values()),
        tokens=tokens,
        seconds=time.monotonic() - began,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        device=scored.device,
        busy_seconds=scored.busy_seconds,
        remarks=scored.remarks,
    )


class _Scored(NamedTuple):
    outcomes: list[list[TurnScore]]
    device: str
    busy_seconds: float
    remarks: tuple[Remark, ...]


def _scored(requests: Sequence[Request], model: RewardModel) -> _Scored:
    outcomes = model.score(requests)
    remarks = model.remarks if isinstance(model, Remarking) else ()
    if isinstance(model, OnDevice):
        return _Scored(outcomes, model.device_name, model.busy_seconds, remarks)
    return _Scored(outcomes, "", 0.0, remarks)


def requested(shard: Shard, home: Home) -> tuple[list[Request], list[list[bytes]]]:
    """The conversations of the shard's records, and for each the keys of the turns to score.

    AssayError where a record differs from the planned one: its scores would be stored as another record's.
    """
    requests = []
    keys = []
    carried = pl.read_ipc(io.BytesIO(shard.carried)) if shard.carried else None
    for (piece,), members in shard.members.group_by("piece", maintain_order=True):
        if carried is not None:
            texts = carried.filter(pl.col("piece") == piece).select("row", "messages", "tools")
        else:
            texts = _texts(shard.record_files[int(str(piece))], home, members["row"])
        conversations: dict[int, tuple[Conversation, str | None]] = {
            row: (_conversation(text), tools) for row, text, tools in texts.iter_rows()
        }
        asked = members.group_by("row", maintain_order=True).agg("turn", KEY)
        for row, turns, asked_keys in asked.iter_rows():
            messages, tools = conversations.get(row, ((), None))
            if _keys_of(messages, tools, turns) != asked_keys:
                file = shard.record_files.get(int(str(piece)))
                place = artifacts_of(home).place_of("" if file is None else file.path)
                raise AssayError(
                    f"{place}: record {row} is not the one that was planned: the file or the plan is "
                    "damaged. Run the same command again: it makes both anew."
                )
            requests.append(Request(messages, tuple(turns), tools))
            keys.append(asked_keys)
    return requests, keys


def _conversation(text: str) -> Conversation:
    """The messages; none where the text is damaged."""
    try:
        return conversation_of(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _keys_of(conversation: Conversation, tools: str | None, turns: Sequence[int]) -> list[bytes]:
    """The keys of these turns, as far as the conversation has them."""
    try:
        keys = turn_keys(conversation, tools)
    except ValueError:
        return []
    return [keys[turn].key for turn in turns if turn < len(keys)]


def _texts(file: Artifact, home: Home, rows: pl.Series) -> pl.DataFrame:
    """Columns row, messages (as a model is shown them) and tools of these rows of a file of records."""
    first, last = int(rows.min()), int(rows.max())  # type: ignore[arg-type]
    files = artifacts_of(home)
    with damage_named(files.place_of(file.path)):
        return (
            pl.scan_parquet(files.to_scan(file), glob=False)
            .slice(first, last - first + 1)
            .select("row", pl.coalesce("shown", "messages").alias("messages"), "tools")
            .filter(pl.col("row").is_in(rows.unique().implode()))
            .collect()
        )
