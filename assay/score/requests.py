"""Have a reward service score shards. One process sends all requests: rate limits hold for the whole run.

One event loop does here what Dask does for local models, with the same plan, segments and store. It asks for
turns of the next shard while the last answers of this one are still to come. So there are always as many
requests in flight as the endpoint allows.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from assay.core.errors import AssayError
from assay.core.schema import Message, turn_positions
from assay.core.text import counted
from assay.rewards.protocol import TurnScore
from assay.rewards.remote.endpoints import ReadBlock
from assay.rewards.remote.replies import PASSING
from assay.rewards.remote.service import Service, in_a_loop
from assay.rewards.remote.transport import Traffic
from assay.rewards.spec import ServedSpec
from assay.score.shard import Shard, ShardWork, requested
from assay.score.store import ScoreStore
from assay.storage.manifests import reason_code
from assay.storage.stage import RunContext

#: How often answers are stored. A process that is killed loses the answers of this time at most.
CHECKPOINT_SECONDS = 20.0

_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class _UnderWay:
    """A shard that has turns without an answer."""

    shard: Shard
    began: float
    left: int
    """Turns without an outcome."""
    unwritten: dict[bytes, TurnScore] = field(default_factory=dict)
    segment: str = ""
    turns: int = 0
    failed: int = 0


def request_scores(
    shards: Iterable[Shard],
    model: ServedSpec,
    context: RunContext,
    *,
    read_block: ReadBlock | None,
    done: Callable[[ShardWork], None],
    lost: Callable[[bytes, str], None],
) -> None:
    """Have the service rate every turn once. Raises what stops the run; answers that came by then are stored.

    Calls ``done`` with each shard that ends, and ``lost`` with each turn whose outcome is not stored.
    """
    in_a_loop(_Requests(model, context, done, lost).all_of(shards, read_block))


class _Requests:
    def __init__(
        self,
        model: ServedSpec,
        context: RunContext,
        done: Callable[[ShardWork], None],
        lost: Callable[[bytes, str], None],
    ) -> None:
        self._model = model
        self._context = context
        self._home = context.home
        self._done = done
        self._lost = lost
        self._progress = context.progress
        self._store = ScoreStore(context.home, model.fingerprint, model.attributes)
        self._under_way: dict[int, _UnderWay] = {}
        self._writing = asyncio.Lock()
        self._reported = Traffic()
        self._tokens_reported = 0
        self._tokens_of_shards = 0

    async def all_of(self, shards: Iterable[Shard], read_block: ReadBlock | None) -> None:
        service = Service(self._model, read_block=read_block, progress=self._progress)
        try:
            async with service, asyncio.TaskGroup() as group:
                looking = group.create_task(_now_and_then(self._context.leave_if_unwanted))
                await service.probe()
                saving = group.create_task(self._save_now_and_then())
                await self._ask(shards, service)
                saving.cancel()
                looking.cancel()
        except BaseExceptionGroup as several:
            raise _first(several) from None
        finally:
            self._write_the_rest()

    async def _ask(self, shards: Iterable[Shard], service: Service) -> None:
        """Ask for a turn whenever one more request may be in flight; return when all are answered."""
        room = asyncio.Semaphore(service.endpoint.in_flight)

        async def ask(number: int, key: bytes, messages: Sequence[Message], tools: str | None) -> None:
            try:
                self._note(number, key, await service.rate(messages, tools), service)
                if self._under_way[number].left == 0:
                    await self._end(number, service)
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            for number, shard in enumerate(shards):
                requests, keys = await asyncio.to_thread(requested, shard, self._home)
                left = sum(len(turns) for turns in keys)
                self._under_way[number] = _UnderWay(shard, time.monotonic(), left)
                for request, turn_keys in zip(requests, keys, strict=True):
                    positions = turn_positions(request.messages)
                    for turn, key in zip(request.turns, turn_keys, strict=True):
                        await room.acquire()
                        through = request.messages[: positions[turn] + 1]
                        group.create_task(ask(number, key, through, request.tools))

    def _note(self, number: int, key: bytes, outcome: TurnScore, service: Service) -> None:
        """Note a turn's outcome."""
        one = self._under_way[number]
        one.left -= 1
        one.turns += 1
        one.failed += outcome.values is None
        if outcome.reason is not None and reason_code(outcome.reason) in PASSING:
            self._lost(key, outcome.reason)
        else:
            one.unwritten[key] = outcome
        self._report(int(outcome.values is None), service)

    def _report(self, failed: int, service: Service) -> None:
        """Report the progress, and the requests and tokens since the last report."""
        sent, endpoint = service.traffic, service.endpoint
        requests = sent.requests - self._reported.requests
        tokens = service.tokens_seen - self._tokens_reported
        details: dict[str, float] = {
            "failed": failed,
            "tokens": tokens,
            "requests": requests,
            "retries": sent.retries - self._reported.retries,
        }
        cost = endpoint.usage(requests, tokens).cost
        if cost is not None:
            details["cost"] = cost
        self._progress.advance(1, currency=endpoint.currency, **details)
        self._reported = Traffic(sent.requests, sent.retries)
        self._tokens_reported = service.tokens_seen

    async def _end(self, number: int, service: Service) -> None:
        """Store a shard whose last turn got its outcome, and report the shard."""
        await self._write(self._under_way[number])
        one = self._under_way.pop(number)
        tokens = service.tokens_seen - self._tokens_of_shards
        self._tokens_of_shards = service.tokens_seen
        self._done(
            ShardWork(
                shard=one.shard.number,
                segment=one.segment,
                turns=one.turns,
                failed=one.failed,
                tokens=tokens,
                seconds=time.monotonic() - one.began,
                worker=f"{socket.gethostname()}:{os.getpid()}",
            )
        )

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            for one in list(self._under_way.values()):
                await self._write(one)

    async def _write(self, one: _UnderWay) -> None:
        """Write the turns that are in no segment yet. In a thread: replies are read meanwhile."""
        async with self._writing:
            if taken := dict(one.unwritten):
                one.segment = await asyncio.to_thread(self._segment, taken)
                for key in taken:
                    del one.unwritten[key]

    def _segment(self, scores: dict[bytes, TurnScore]) -> str:
        """The digest of a new segment. Its rows are in the order of the keys, not of the replies."""
        return self._store.write(dict(sorted(scores.items())))

    def _write_the_rest(self) -> None:
        """When the run stops, store the answers that are left. A failure is reported and raises nothing."""
        lost = 0
        failure: Exception | None = None
        for one in self._under_way.values():
            if one.unwritten:
                try:
                    self._segment(one.unwritten)
                except (AssayError, OSError) as error:
                    lost += len(one.unwritten)
                    failure = failure or error
        if failure is not None:
            self._progress.say(f"warning: {counted(lost, 'rated turns')} could not be stored: {failure}")


async def _now_and_then(look: Callable[[], None]) -> None:
    while True:
        look()
        await asyncio.sleep(_LOOK_SECONDS)


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that caused the others: an AssayError if there is one."""
    leaves: list[BaseException] = []
    for one in several.exceptions:
        leaves.append(_first(one) if isinstance(one, BaseExceptionGroup) else one)
    return next((leaf for leaf in leaves if isinstance(leaf, AssayError)), leaves[0])
