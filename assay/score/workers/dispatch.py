"""Shards over workers: heaviest first, a bounded number in flight, and no row that stops the rest."""

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
    from distributed import Client, Future

#: So many shards a worker are handed out at a time: one to work on, one to go on with.
_IN_FLIGHT_PER_WORKER = 2

#: How often the scheduler is asked how many workers there are.
_COUNT_SECONDS = 1.0

#: With no worker at all for so long, the run ends instead of waiting for ever.
NO_WORKERS_SECONDS = 60.0


class _Attempt(NamedTuple):
    future: Future[ShardWork]
    shard: Shard
    alone: bool


#: What a worker ends with whose GPU is lost; its nanny then starts another.
DEVICE_LOST_EXIT = 71


class _Unwanted(Exception):
    """The run that asked for a shard has gone; there is nobody left to read this."""


def score_or_leave(shard: Shard, model: LocalSpec, home: Home) -> ShardWork:
    """``score_shard``, in a worker; left between two batches once the run that asked for it has gone.

    Dask cannot interrupt a thread: it only notes that a task under way was given up, by its run or by the
    scheduler that the run no longer answers. That note is in the worker's own memory, and looking at it costs
    nothing.

    The worker's process ends where its device is lost. An error of CUDA stays with the process, so every
    later shard would fail here too. The nanny starts a new worker, the scheduler gives the shard out again,
    and one that does it twice is a suspect.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def check() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise _Unwanted

    try:
        return score_shard(shard, model, home, check=check)
    except DeviceLost as error:
        if worker.nanny is None:
            raise
        print(f"worker {os.getpid()}: {error}; it is replaced", file=sys.stderr, flush=True)
        os._exit(DEVICE_LOST_EXIT)
    except StoreFault as error:
        # Of many workers, one may have no way to S3, or lack its credentials or a package.
        raise type(error)(f"worker on {socket.gethostname()}: {error}") from None


def dispatch(
    client: Client,
    shards: Iterable[Shard],
    model: LocalSpec,
    context: RunContext,
    *,
    done: Callable[[ShardWork | Fatal], None],
    no_workers_seconds: float = NO_WORKERS_SECONDS,
) -> None:
    """Score every shard; ``done`` hears of each as it ends. Raises what a shard raises.

    A shard whose workers die is a suspect: the others finish first, then it runs alone, so that no
    innocent one is blamed; if it kills again it is halved, down to the turn that does it.
    """
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    home = context.home
    waiting = deque(sorted(shards, key=lambda shard: (-shard.estimated_tokens, shard.number)))
    suspects: deque[Shard] = deque()
    in_flight: dict[str, _Attempt] = {}
    finished: queue.SimpleQueue[str] = queue.SimpleQueue()
    submitted = 0
    # A scheduler may serve several runs, and to it what has one key is one task.
    run = secrets.token_hex(4)
    last_seen_workers = time.monotonic()
    worker_count, counted = 0, -math.inf

    def submit(shard: Shard, *, alone: bool = False) -> None:
        nonlocal submitted
        submitted += 1
        key = f"score-{run}-{shard.number}-{submitted}"
        sent = shard if home.score_store is None else shard.carrying(home)
        future = client.submit(score_or_leave, sent, model, home, pure=False, key=key)
        in_flight[key] = _Attempt(future, shard, alone)
        future.add_done_callback(lambda _: finished.put(key))

    while waiting or suspects or in_flight:
        context.leave_if_unwanted()
        if time.monotonic() - counted >= _COUNT_SECONDS:
            # Their number alone: a list of 1,000 costs both sides more than a shard does.
            worker_count, counted = client.scheduler_info(n_workers=0)["n_workers"], time.monotonic()
        while waiting and len(in_flight) < _IN_FLIGHT_PER_WORKER * max(1, worker_count):
            submit(waiting.popleft())
        if not in_flight:
            submit(suspects.popleft(), alone=True)
        try:
            key = finished.get(timeout=_COUNT_SECONDS)
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
        future, shard, alone = in_flight.pop(key)
        try:
            done(future.result())
        except KilledWorker:
            if not alone:
                context.say(f"shard {shard.number}: its worker died more than once; it is tried again, alone")
                suspects.append(shard)
            elif shard.members.height > 1:
                context.say(f"shard {shard.number}: kills its worker; looking for the turn that does it")
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
