"""The ways to a model's scores: workers load it, or its service is asked. Chosen here and nowhere else."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from assay.core.schema import Conversation, turn_positions
from assay.core.text import counted
from assay.rewards.protocol import Request, RewardModel, TurnScore
from assay.rewards.remote.endpoints import ReadBlock
from assay.rewards.spec import LocalSpec, ModelSpec, ServedSpec
from assay.rewards.weights import weights_bytes
from assay.score import shard_size
from assay.score.shard import Fatal, Shard, ShardWork
from assay.score.store import KEY
from assay.score.workers.cluster import ClusterOptions, connected, on_gpus
from assay.storage.stage import RunContext

#: The reason of a turn that kills its workers.
KILLED = "killed_workers: every worker that took this turn died, most likely of memory"


#: Called with each shard that ends.
Done = Callable[[ShardWork], None]
#: Called with the key and the reason of each turn that another attempt may have a score for.
Lost = Callable[[bytes, str], None]


class Way(Protocol):
    """One way to a model's scores."""

    def opened(self) -> RewardModel:
        """The model, ready to score in this process."""
        ...

    async def rated(self, conversation: Conversation) -> TurnScore:
        """The outcome for the last message of one conversation, a turn."""
        ...

    def shard_tokens(self, total_tokens: int) -> int:
        """Estimated tokens of a shard, where so many are to be scored."""
        ...

    def score(
        self, shards: Iterator[Shard], turns: int, context: RunContext, *, done: Done, lost: Lost
    ) -> float:
        """Store the scores of the shards, which hold so many turns; how many seconds workers had them."""
        ...


def way_of(
    model: ModelSpec, *, cluster: ClusterOptions | None = None, read_block: ReadBlock | None = None
) -> Way:
    """How this model is scored: by workers of ``cluster``, or by a service.

    ``read_block`` looks up the secret block that holds a service's key.
    """
    match model:
        case LocalSpec():
            return ByWorkers(model, cluster or ClusterOptions())
        case ServedSpec():
            return ByRequests(model, read_block)


@dataclass(frozen=True, slots=True)
class ByWorkers:
    """Dask's workers load the model; a single conversation is rated by this process, which loads it too."""

    model: LocalSpec
    cluster: ClusterOptions

    def opened(self) -> RewardModel:
        """The model, loaded once a process."""
        from assay.score.workers.open_model import opened

        return opened(self.model)

    async def rated(self, conversation: Conversation) -> TurnScore:
        """The outcome for the last message, computed in a thread."""
        return await asyncio.to_thread(self._rated, conversation)

    def _rated(self, conversation: Conversation) -> TurnScore:
        last = len(turn_positions(conversation)) - 1
        ((outcome,),) = self.opened().score([Request(conversation, (last,))])
        return outcome

    def shard_tokens(self, total_tokens: int) -> int:
        """Estimated tokens of a shard, for the devices of these workers."""
        device = shard_size.GPU if on_gpus(self.cluster) else shard_size.CPU
        return shard_size.tokens_a_shard(total_tokens, self.model, device)

    def score(
        self, shards: Iterator[Shard], turns: int, context: RunContext, *, done: Done, lost: Lost
    ) -> float:
        """Have workers score and store the shards; the seconds in which they had them."""
        from assay.score.workers.dispatch import dispatch

        progress = context.progress
        finished: list[ShardWork] = []

        def ended(result: ShardWork | Fatal) -> None:
            if isinstance(result, Fatal):
                members = result.shard.members
                for key in members[KEY]:
                    lost(key, KILLED)
                progress.say(f"shard {result.shard.number}: one turn kills its workers and is left out")
                progress.advance(members.height, failed=members.height)
                return
            finished.append(result)
            done(result)
            progress.advance(
                result.turns,
                failed=result.failed,
                tokens=result.tokens,
                worker=result.worker,
                busy_seconds=result.busy_seconds,
            )

        sized = dataclasses.replace(self.cluster, model_bytes=weights_bytes(self.model))
        with connected(sized, progress) as client:
            began = time.monotonic()
            with _reported_when_stopped(finished, turns, context):
                dispatch(client, shards, self.model, context, done=ended)
            return time.monotonic() - began


@dataclass(frozen=True, slots=True)
class ByRequests:
    """This process asks the service: its limits are one for the run."""

    model: ServedSpec
    read_block: ReadBlock | None

    def opened(self) -> RewardModel:
        """The service, asked a short question first whenever it is used."""
        from assay.rewards.remote.service import ServiceModel

        return ServiceModel(self.model, read_block=self.read_block)

    async def rated(self, conversation: Conversation) -> TurnScore:
        """The outcome for the last message, by one request."""
        from assay.rewards.remote.service import Service

        async with Service(self.model, read_block=self.read_block) as service:
            return await service.rate(conversation)

    def shard_tokens(self, total_tokens: int) -> int:
        """Estimated tokens of a shard. Its size does not matter: answers are stored as time passes."""
        return shard_size.SERVICE_TOKENS

    def score(
        self, shards: Iterator[Shard], turns: int, context: RunContext, *, done: Done, lost: Lost
    ) -> float:
        """Ask for every turn and store the answers; 0, for there are no workers."""
        from assay.score.requests import request_scores

        request_scores(shards, self.model, context, read_block=self.read_block, done=done, lost=lost)
        return 0.0


@contextmanager
def _reported_when_stopped(finished: Sequence[ShardWork], turns: int, context: RunContext) -> Iterator[None]:
    """Within, a line says how many of so many turns are stored by then, where anything ends the run.

    At least those of ``finished`` shards: workers store a shard before they report it. A signal can come out
    of a library's call as any exception.
    """
    try:
        yield
    except BaseException:
        stored = sum(shard.turns for shard in finished)
        context.say(f"score: at least {stored:,} of {counted(turns, 'turns')} are stored")
        raise
