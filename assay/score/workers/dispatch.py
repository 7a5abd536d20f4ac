"""Hand shards to workers: the heaviest first, a bounded number at a time. No row stops the others."""

from __future__ import annotations

import math
import os
import queue
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from assay.core.errors import ClusterFault, DeviceLost, StoreFault
from assay.rewards.spec import LocalSpec
from assay.score.shard import Fatal, Shard, ShardWork, score_shard
from assay.storage.home import Home
from assay.storage.stage import RunContext

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

#: How many shards a worker has at a time: one in work, one waiting.
_IN_FLIGHT_PER_WORKER = 2

#: How often the run asks the scheduler how many workers there are.
_COUNT_SECONDS = 1.0

#: The topic of these events. One for all runs: a scheduler never forgets a topic.
_BATCHES = "assay-batches"

#: A worker sends what it has scored no more often than this.
_BATCHES_SECONDS = 0.5

#: With no worker at all for this long, the run ends instead of waiting for ever.
NO_WORKERS_SECONDS = 60.0


class _Batch(NamedTuple):
    turns: int
    tokens: int


class _Attempt(NamedTuple):
    future: Future[ShardWork]
    shard: Shard
    alone: bool


#: The exit code of a worker whose GPU is lost. Its nanny then starts another worker.
DEVICE_LOST_EXIT = 71
#: With which a worker ends that found no memory.
NO_MEMORY_EXIT = 72


class _Unwanted(Exception):
    """The run that wants this shard is gone. Nobody reads this message."""


class _Batches:
    """Sends a worker's batches to the run, several together: a small model scores many a second."""

    def __init__(self, worker: Worker, run: str) -> None:
        self._worker = worker
        self._run = run
        self._turns, self._tokens = 0, 0
        self._sent = time.monotonic()

    def note(self, turns: int, tokens: int) -> None:
        """Take a batch."""
        self._turns += turns
        self._tokens += tokens
        if time.monotonic() - self._sent >= _BATCHES_SECONDS:
            self._worker.log_event(_BATCHES, [self._run, self._turns, self._tokens])
            self._turns, self._tokens, self._sent = 0, 0, time.monotonic()


def score_or_leave(shard: Shard, model: LocalSpec, home: Home, run: str) -> ShardWork:
    """``score_shard`` in a worker; it stops between two batches once the run is gone.

    While it works, it sends what batches it has scored to ``run``, as an event of Dask.

    Dask cannot interrupt a thread. It only notes in the worker's memory that a running task was cancelled, by
    the run or by a scheduler that lost the run. Reading that note costs nothing.

    Where the GPU is lost, the worker's process ends: a CUDA error stays with the process, so every later
    shard would fail too. The nanny starts a new worker, and the scheduler hands out the shard again. A shard
    that does this twice is a suspect. A worker whose memory ran out, other than for a batch, is replaced too:
    what it still holds is not known.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def check() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise _Unwanted

    try:
        return score_shard(shard, model, home, check=check, heard=_Batches(worker, run).note)
    except DeviceLost as error:
        if worker.nanny is None:
            raise
        print(f"worker {os.getpid()}: {error}; it is replaced", file=sys.stderr, flush=True)
        os._exit(DEVICE_LOST_EXIT)
    except MemoryError:
        where = f"worker {os.getpid()} on {socket.gethostname()}: memory ran out"
        if worker.nanny is None:
            raise ClusterFault(
                f"{where}; give the workers more of it, or start them with nannies, which replace a worker"
            ) from None
        print(f"{where}; it is replaced", file=sys.stderr, flush=True)
        os._exit(NO_MEMORY_EXIT)
    except StoreFault as error:
        # Name the worker: one of many may not reach S3, or lack its credentials or a package.
        raise type(error)(f"worker on {socket.gethostname()}: {error}") from None


def dispatch(
    client: Client,
    shards: Iterable[Shard],
    model: LocalSpec,
    context: RunContext,
    *,
    done: Callable[[ShardWork | Fatal], None],
    batch: Callable[[int, int], None] = lambda turns, tokens: None,
    no_workers_seconds: float = NO_WORKERS_SECONDS,
) -> None:
    """Score every shard. Calls ``done`` with the result of each as it ends. Raises what a shard raises.

    Before that, ``batch`` is called with the turns and tokens of batches as workers end them. A shard that
    ends may have had batches that nobody heard of, and one whose worker dies has them again.

    A shard whose workers die is a suspect. The other shards finish first. Then the suspect runs alone, so
    that no innocent shard is blamed. If it kills again it is halved, down to the turn that does it.
    """
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    home = context.home
    waiting = deque(sorted(shards, key=lambda shard: (-shard.estimated_tokens, shard.number)))
    suspects: deque[Shard] = deque()
    in_flight: dict[str, _Attempt] = {}
    finished: queue.SimpleQueue[str | _Batch] = queue.SimpleQueue()
    submitted = 0
    # A scheduler may serve several runs, and it takes equal keys for one task.
    run = secrets.token_hex(4)
    last_seen_workers = time.monotonic()
    worker_count, counted = 0, -math.inf

    def submit(shard: Shard, *, alone: bool = False) -> None:
        nonlocal submitted
        submitted += 1
        key = f"score-{run}-{shard.number}-{submitted}"
        sent = shard if home.score_store is None else shard.carrying(home)
        future = client.submit(score_or_leave, sent, model, home, run, pure=False, key=key)
        in_flight[key] = _Attempt(future, shard, alone)
        future.add_done_callback(lambda _: finished.put(key))

    def hear(event: tuple[float, tuple[str, int, int]]) -> None:
        """Keep what Dask's thread hears of this run's batches for this one, beside what is finished."""
        of_run, turns, tokens = event[1]
        if of_run == run:
            finished.put(_Batch(turns, tokens))

    client.subscribe_topic(_BATCHES, hear)
    while waiting or suspects or in_flight:
        context.leave_if_unwanted()
        if time.monotonic() - counted >= _COUNT_SECONDS:
            # Ask for their number only: a list of 1,000 workers costs both sides more than a shard does.
            worker_count, counted = client.scheduler_info(n_workers=0)["n_workers"], time.monotonic()
        while waiting and len(in_flight) < _IN_FLIGHT_PER_WORKER * max(1, worker_count):
            submit(waiting.popleft())
        if not in_flight:
            submit(suspects.popleft(), alone=True)
        try:
            news = finished.get(timeout=_COUNT_SECONDS)
        except queue.Empty:
            if worker_count:
                last_seen_workers = time.monotonic()
            elif time.monotonic() - last_seen_workers > no_workers_seconds:
                raise ClusterFault(
                    f"all Dask workers are gone, and none came back within {no_workers_seconds:.0f} s; what "
                    "is scored is stored, and the same command goes on from there"
                ) from None
            continue
        last_seen_workers = time.monotonic()
        if isinstance(news, _Batch):
            batch(*news)
            continue
        future, shard, alone = in_flight.pop(news)
        try:
            done(future.result())
        except KilledWorker:
            if not alone:
                context.say(
                    f"shard {shard.number}: its worker died more than once; trying the shard again, alone"
                )
                suspects.append(shard)
            elif shard.members.height > 1:
                context.say(f"shard {shard.number}: it kills its worker; looking for the turn that does it")
                suspects.extendleft(reversed(shard.halves()))
            else:
                done(Fatal(shard))
        except (FutureCancelledError, CommClosedError) as error:
            raise ClusterFault(
                "the Dask scheduler is gone; what is scored is stored, and the same command goes on "
                "from there"
            ) from error
        finally:
            future.release()
