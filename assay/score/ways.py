"""The two ways to score: workers load the model, or a service is asked. Only this module chooses."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from assay.core.progress import Progress
from assay.core.schema import Conversation, turn_positions
from assay.core.text import counted
from assay.rewards.protocol import Request, RewardModel, TurnScore
from assay.rewards.remote.endpoints import ReadBlock
from assay.rewards.spec import LocalSpec, ModelSpec, ServedSpec
from assay.rewards.weights import weights_bytes
from assay.score import shard_size
from assay.score.open_model import opened
from assay.score.shard import Fatal, Shard, ShardJob, ShardWork
from assay.score.store import KEY
from assay.storage.stage import RunContext
from assay.workers.cluster import ClusterOptions, on_gpus
from assay.workers.of_run import workers_for

#: The reason why a turn that kills its workers has no score.
KILLED = "killed_workers: every worker that took this turn died, most likely of memory"


#: Called with each shard that ends.
Done = Callable[[ShardWork], None]
#: Called with the key and the reason of each turn that has no score, but may get one in another attempt.
Lost = Callable[[bytes, str], None]


class Way(Protocol):
    """One way to score with a model."""

    def opened(self) -> RewardModel:
        """The model, ready to score in this process."""
        ...

    async def rated(self, conversation: Conversation, tools: str | None = None) -> TurnScore:
        """The outcome for the last message of one conversation, which must be a turn."""
        ...

    def shard_tokens(self, total_tokens: int) -> int:
        """Estimated tokens of a shard, where ``total_tokens`` are to be scored."""
        ...

    def score(
        self, shards: Iterator[Shard], turns: int, context: RunContext, *, done: Done, lost: Lost
    ) -> float:
        """Score the shards, which hold ``turns`` turns, and store the scores. Returns the seconds of workers.

        These are the seconds from the moment that workers were ready to the end of the last shard.
        """
        ...


def way_of(
    model: ModelSpec, *, cluster: ClusterOptions | None = None, read_block: ReadBlock | None = None
) -> Way:
    """The way to score with this model: by workers of ``cluster``, or by a service.

    ``read_block`` looks up the secret block that holds a service's key.
    """
    match model:
        case LocalSpec():
            return ByWorkers(model, cluster or ClusterOptions())
        case ServedSpec():
            return ByRequests(model, read_block)


def model_bytes(model: ModelSpec) -> int:
    """What the model takes in the memory of each worker: nothing where a service rates."""
    return weights_bytes(model) if isinstance(model, LocalSpec) else 0


@dataclass(frozen=True, slots=True)
class ByWorkers:
    """Dask workers load the model and score shards. This process loads it to rate a single conversation."""

    model: LocalSpec
    cluster: ClusterOptions

    def opened(self) -> RewardModel:
        """The model, which this process loads once."""
        return opened(self.model)

    async def rated(self, conversation: Conversation, tools: str | None = None) -> TurnScore:
        """The outcome for the last message, computed in a thread."""
        return await asyncio.to_thread(self._rated, conversation, tools)

    def _rated(self, conversation: Conversation, tools: str | None) -> TurnScore:
        last = len(turn_positions(conversation)) - 1
        ((outcome,),) = self.opened().score([Request(conversation, (last,), tools)])
        return outcome

    def shard_tokens(self, total_tokens: int) -> int:
        """Estimated tokens of a shard, for the devices of these workers."""
        device = shard_size.GPU if on_gpus(self.cluster) else shard_size.CPU
        return shard_size.tokens_a_shard(total_tokens, self.model, device)

    def score(
        self, shards: Iterator[Shard], turns: int, context: RunContext, *, done: Done, lost: Lost
    ) -> float:
        """Have workers score the shards and store the scores. Returns the seconds that they took for it."""
        from assay.workers.dispatch import dispatch

        home, progress = context.home, context.progress
        finished: list[ShardWork] = []
        moved = _Moved(turns, progress)

        def ended(result: ShardWork | Fatal) -> None:
            if isinstance(result, Fatal):
                members = result.shard.members
                for key in members[KEY]:
                    lost(key, KILLED)
                progress.say(f"shard {result.shard.number}: one turn kills its workers; it gets no score")
                moved.by_shard(members.height, 0, failed=members.height)
                return
            finished.append(result)
            done(result)
            moved.by_shard(
                result.turns,
                result.tokens,
                failed=result.failed,
                worker=result.worker,
                busy_seconds=result.busy_seconds,
            )

        sized = dataclasses.replace(self.cluster, model_bytes=model_bytes(self.model))
        with workers_for(sized, context) as client:
            began = time.monotonic()
            with _reported_when_stopped(finished, turns, context):
                dispatch(
                    client,
                    (ShardJob(shard, self.model, home) for shard in shards),
                    stage="score",
                    done=ended,
                    leave_if_unwanted=context.leave_if_unwanted,
                    progress=progress,
                    batch=moved.by_batch,
                )
            return time.monotonic() - began


class _Moved:
    """Progress that moves with each batch, though only a shard that ends says what it held.

    What batches moved is not moved again when a shard ends. A shard whose worker dies is scored anew, so its
    batches are heard twice: the progress never passes the number of turns.
    """

    def __init__(self, turns: int, progress: Progress) -> None:
        self._progress = progress
        self._left = turns
        self._early_turns, self._early_tokens = 0, 0

    def by_batch(self, turns: int, tokens: int) -> None:
        """Move on by a batch of a shard that has not ended."""
        # Whole at the end of the last shard, and not before.
        turns = min(turns, max(0, self._left - 1))
        self._early_turns += turns
        self._early_tokens += tokens
        self._move(turns, tokens=tokens)

    def by_shard(self, turns: int, tokens: int, **details: float | str) -> None:
        """Move on by what no batch of a shard that has ended has moved."""
        early_turns, early_tokens = min(turns, self._early_turns), min(tokens, self._early_tokens)
        self._early_turns -= early_turns
        self._early_tokens -= early_tokens
        self._move(min(turns - early_turns, self._left), tokens=tokens - early_tokens, **details)

    def _move(self, turns: int, **details: float | str) -> None:
        self._left -= turns
        self._progress.advance(turns, **details)


@dataclass(frozen=True, slots=True)
class ByRequests:
    """This process asks the service, because the service's limits hold for the whole run."""

    model: ServedSpec
    read_block: ReadBlock | None

    def opened(self) -> RewardModel:
        """The service. Each use begins with a short question that checks it."""
        from assay.rewards.remote.service import ServiceModel

        return ServiceModel(self.model, read_block=self.read_block)

    async def rated(self, conversation: Conversation, tools: str | None = None) -> TurnScore:
        """The outcome for the last message, by one request."""
        from assay.rewards.remote.service import Service

        async with Service(self.model, read_block=self.read_block) as service:
            return await service.rate(conversation, tools)

    def shard_tokens(self, total_tokens: int) -> int:
        """Estimated tokens of a shard. Its size does not matter: answers are stored as time passes."""
        return shard_size.SERVICE_TOKENS

    def score(
        self, shards: Iterator[Shard], turns: int, context: RunContext, *, done: Done, lost: Lost
    ) -> float:
        """Ask the service to rate every turn, and store the answers. Returns 0: there are no workers."""
        from assay.score.requests import request_scores

        request_scores(shards, self.model, context, read_block=self.read_block, done=done, lost=lost)
        return 0.0


@contextmanager
def _reported_when_stopped(finished: Sequence[ShardWork], turns: int, context: RunContext) -> Iterator[None]:
    """If anything ends the run in this context, report in a line how many of its ``turns`` are stored.

    The turns of ``finished`` shards are, and there may be more: workers store a shard before they report it.
    It catches every exception, because a signal can leave a library's call as any of them.
    """
    try:
        yield
    except BaseException:
        stored = sum(shard.turns for shard in finished)
        context.say(f"score: at least {stored:,} of {counted(turns, 'turns')} are stored")
        raise
