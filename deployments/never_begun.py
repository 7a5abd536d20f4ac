"""Runs that a worker took and never began: they are started again.

The server sets a run to *Pending* when a worker takes it. If the server restarts just then, its answer may be
lost. The worker asks again, is told that the run is *Pending* already, and leaves it alone. A run whose
process ended while the server was away for longer than a minute stays *Pending* too. Nothing in Prefect looks
after such a run: it would wait for good.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psutil

from deployments.register import client_of

#: For longer than that, no worker tries to have an answer of the server.
PATIENCE = timedelta(minutes=2)

_LOOK_SECONDS = 30.0


def watch(api_url: str, pool: str, queues: Sequence[str]) -> None:
    """Have a thread of this process, which is the only worker of these queues, look for such runs.

    Without ``queues``, it is the only worker of the pool.
    """
    thread = threading.Thread(target=_look, args=(api_url, pool, queues), daemon=True, name="never begun")
    thread.start()


def _look(api_url: str, pool: str, queues: Sequence[str]) -> None:
    from tasks.pages import where_reachable

    never = threading.Event()
    while not never.wait(_LOOK_SECONDS):
        with where_reachable():
            for name in start_again(api_url, pool, queues):
                print(f"the run {name} had not begun, and starts again", file=sys.stderr, flush=True)


def start_again(
    api_url: str, pool: str, queues: Sequence[str] = (), *, patience: timedelta = PATIENCE
) -> list[str]:
    """The names of the runs that have been *Pending* for so long without a process here. They start again."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
        WorkQueueFilter,
        WorkQueueFilterName,
    )
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Scheduled

    pending = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])))
    of_queues = WorkQueueFilter(name=WorkQueueFilterName(any_=list(queues))) if queues else None
    with client_of(api_url) as client:
        found = client.read_flow_runs(
            flow_run_filter=pending,
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            work_queue_filter=of_queues,
        )
        before = datetime.now(UTC) - patience
        lost = [run for run in found if run.state is not None and run.state.timestamp <= before]
        if not lost:
            return []
        alive = _runs_here()
        lost = [run for run in lost if run.id not in alive]
        for run in lost:
            again: State[None] = Scheduled(message="Its worker had not begun it. It starts again.")
            client.set_flow_run_state(run.id, again, force=True)
    return [run.name for run in lost]


def _runs_here() -> set[UUID]:
    """The runs whose processes this worker has started and that live."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, ValueError):
            found.add(UUID(process.environ().get("PREFECT__FLOW_RUN_ID", "")))
    return found
