"""Shards over a reward service: asked from this process, because its limits are one for the run.

What Dask does for local models, one event loop does here: the same plan, the same segments, the same
store. Turns of the next shard are asked for while the last ones of this shard are under way, so that the
service always has as much in hand as it allows.
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

#: What is paid for is stored at least so often; a process that is killed loses no more.
CHECKPOINT_SECONDS = 20.0

_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class _UnderWay:
    """A shard some of whose turns are being asked for."""

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
    """Have every turn rated, each asked for once. Raises what stops the run; what is rated by then is stored.

    ``done`` hears of each shard as it ends, ``lost`` of each turn whose outcome is not to be stored.
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
        self._told = Traffic()
        self._tokens_told = 0
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
        """Start a turn whenever there is room for one; return when all have ended."""
        room = asyncio.Semaphore(service.endpoint.in_flight)

        async def ask(number: int, key: bytes, messages: Sequence[Message]) -> None:
            try:
                self._note(number, key, await service.rate(messages), service)
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
                        group.create_task(ask(number, key, request.messages[: positions[turn] + 1]))

    def _note(self, number: int, key: bytes, outcome: TurnScore, service: Service) -> None:
        """Take a turn's outcome down."""
        one = self._under_way[number]
        one.left -= 1
        one.turns += 1
        one.failed += outcome.values is None
        if outcome.reason is not None and reason_code(outcome.reason) in PASSING:
            self._lost(key, outcome.reason)
        else:
            one.unwritten[key] = outcome
        self._tell(int(outcome.values is None), service)

    def _tell(self, failed: int, service: Service) -> None:
        """Pass on what went over the wire since the last time."""
        sent, endpoint = service.traffic, service.endpoint
        requests = sent.requests - self._told.requests
        tokens = service.tokens_seen - self._tokens_told
        details: dict[str, float] = {
            "failed": failed,
            "tokens": tokens,
            "requests": requests,
            "retries": sent.retries - self._told.retries,
        }
        cost = endpoint.usage(requests, tokens).cost
        if cost is not None:
            details["cost"] = cost
        self._progress.advance(1, currency=endpoint.currency, **details)
        self._told = Traffic(sent.requests, sent.retries)
        self._tokens_told = service.tokens_seen

    async def _end(self, number: int, service: Service) -> None:
        """Write a shard all of whose turns have an outcome."""
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
        """A segment of the turns that are in none yet; in a thread, for replies do not wait for a store."""
        async with self._writing:
            if taken := dict(one.unwritten):
                one.segment = await asyncio.to_thread(self._segment, taken)
                for key in taken:
                    del one.unwritten[key]

    def _segment(self, scores: dict[bytes, TurnScore]) -> str:
        """The digest of a new segment, in the order of the keys and not of the replies."""
        return self._store.write(dict(sorted(scores.items())))

    def _write_the_rest(self) -> None:
        """Write what a stop left of every shard. A failure is a line: what stopped the run is raised."""
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
    """The one failure that the others, cancelled for it, follow from."""
    leaves: list[BaseException] = []
    for one in several.exceptions:
        leaves.append(_first(one) if isinstance(one, BaseExceptionGroup) else one)
    return next((leaf for leaf in leaves if isinstance(leaf, AssayError)), leaves[0])
