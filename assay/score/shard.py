"""Score one shard. This is what Dask runs in a worker; it knows nothing of Prefect."""

from __future__ import annotations

import dataclasses
import io
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from assay.core.errors import AssayError
from assay.core.schema import Conversation, Message, turn_keys
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
from assay.score.store import KEY, ScoreStore
from assay.score.workers.open_model import using
from assay.storage.disk import damage_named
from assay.storage.home import Home

_CONVERSATION = msgspec.json.Decoder(tuple[Message, ...])


@dataclass(frozen=True, slots=True)
class Shard:
    """Some planned turns, to be scored together."""

    number: int
    members: pl.DataFrame
    """A row a turn, ordered by piece, row, turn: piece, row, turn, key."""
    record_files: dict[int, str]
    """Where the records of each piece are: paths below ``Home.artifacts``."""
    estimated_tokens: int
    carried: bytes = b""
    """The records themselves, for a worker that does not see those files: Arrow of piece, row, messages."""

    @property
    def records(self) -> pl.DataFrame:
        """The distinct records: piece, row."""
        return self.members.select("piece", "row").unique(maintain_order=True)

    def halves(self) -> tuple[Shard, Shard]:
        """Two shards with half of the records each; of a single record, with half of its turns each.

        The earlier turns of a record are read from a shorter text, and need not share the fate of the later.
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
        """This shard with its records in it, for a worker that shares no file system with this process."""
        written = io.BytesIO()
        frames = [
            _texts(home.artifacts / self.record_files[int(str(piece))], members["row"]).select(
                pl.lit(piece, pl.UInt32).alias("piece"), "row", "messages"
            )
            for (piece,), members in self.members.group_by("piece", maintain_order=True)
        ]
        pl.concat(frames).write_ipc(written, compression="zstd")
        return dataclasses.replace(self, record_files={}, carried=written.getvalue())


@dataclass(frozen=True, slots=True)
class ShardWork:
    """What one shard took, and where its scores are."""

    shard: int
    segment: str
    """Empty where no outcome is one to keep."""
    turns: int
    failed: int
    tokens: int
    """Of the conversations through their last planned turns, however often a token was computed."""
    seconds: float
    worker: str
    device: str = ""
    """What the worker computes on."""
    busy_seconds: float = 0.0
    """How long that was at work for this shard."""
    remarks: tuple[Remark, ...] = ()
    """What the model remarks on other numbers that it could have meant."""
    unstored: dict[bytes, str] = field(default_factory=dict)
    """Reasons of turns that another attempt could have a score for."""


@dataclass(frozen=True, slots=True)
class Fatal:
    """A shard of one turn that killed every worker it reached."""

    shard: Shard


def score_shard(
    shard: Shard, spec: LocalSpec, home: Home, *, check: Callable[[], None] = lambda: None
) -> ShardWork:
    """What scoring this shard took; its scores are one new segment of the store.

    Doing it twice does no harm: the same turns in the same order give the same segment under the same
    name. ``check`` is called before every batch; what it raises ends the scoring, and nothing is written.
    """
    began = time.monotonic()
    scores: dict[bytes, TurnScore] = {}
    tokens = 0
    requests, keys = requested(shard, home)
    with checking(check):
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
    """The conversations of the shard's records, and the keys of the turns asked of each.

    AssayError where a record is not the one that was planned, for its scores would be kept as another's.
    """
    requests = []
    keys = []
    carried = pl.read_ipc(io.BytesIO(shard.carried)) if shard.carried else None
    for (piece,), members in shard.members.group_by("piece", maintain_order=True):
        if carried is not None:
            texts = carried.filter(pl.col("piece") == piece).select("row", "messages")
        else:
            texts = _texts(home.artifacts / shard.record_files[int(str(piece))], members["row"])
        conversations: dict[int, Conversation] = {row: _conversation(text) for row, text in texts.iter_rows()}
        asked = members.group_by("row", maintain_order=True).agg("turn", KEY)
        for row, turns, asked_keys in asked.iter_rows():
            if _keys_of(conversations.get(row, ()), turns) != asked_keys:
                place = home.artifacts / shard.record_files.get(int(str(piece)), "")
                raise AssayError(
                    f"{place}: record {row} is not the one that was planned; the file, or the plan, is "
                    "damaged. Run again: it is made anew."
                )
            requests.append(Request(conversations[row], tuple(turns)))
            keys.append(asked_keys)
    return requests, keys


def _conversation(text: str) -> Conversation:
    """The messages; none where the text is not what was written."""
    try:
        return _CONVERSATION.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _keys_of(conversation: Conversation, turns: Sequence[int]) -> list[bytes]:
    """The keys of these turns, as far as the conversation has them."""
    keys = turn_keys(conversation)
    return [keys[turn].key for turn in turns if turn < len(keys)]


def _texts(path: Path, rows: pl.Series) -> pl.DataFrame:
    """Those rows of a file of records: row, messages."""
    first, last = int(rows.min()), int(rows.max())  # type: ignore[arg-type]
    with damage_named(path):
        return (
            pl.scan_parquet(path, glob=False)
            .slice(first, last - first + 1)
            .select("row", "messages")
            .filter(pl.col("row").is_in(rows.unique().implode()))
            .collect()
        )
