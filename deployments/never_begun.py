"""Runs that a worker took and never began: they are started again.

The server sets a run to *Pending* when a worker takes it. If the server restarts just then, its answer may be
lost. The worker asks again, is told that the run is *Pending* already, and leaves it alone. A run whose
process ended while the server was away for longer than a minute stays *Pending* too. Nothing in Prefect looks
after such a run: it would wait for good. A worker that cannot send its events just then starts no process,
and calls the run *Crashed*. Such a run starts again once.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import psutil

from deployments.register import client_of, last_runs

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

#: After this long, no worker still waits for the server's answer.
PATIENCE = timedelta(minutes=2)

_LOOK_SECONDS = 30.0
#: What Prefect's worker says of a run whose process it could not start.
_NOT_SUBMITTED = "submit flow run to infrastructure"


def watch(api_url: str, pool: str, queues: Sequence[str]) -> None:
    """Have a thread of this process, which is the only worker of these queues, look for such runs.

    Without ``queues``, it is the only worker of the pool.
    """
    thread = threading.Thread(target=_look, args=(api_url, pool, queues), daemon=True, name="never begun")
    thread.start()


def _look(api_url: str, pool: str, queues: Sequence[str]) -> None:
    never, waits = threading.Event(), Waits()
    while not never.wait(_LOOK_SECONDS):
        try:
            for name in start_again(api_url, pool, queues, waits):
                print(f"the run {name} had not begun, and starts again", file=sys.stderr, flush=True)
        except Exception as error:  # noqa: BLE001 - one odd answer must not end this thread
            # A proxy may answer in the place of a server that restarts. The next look may do better.
            print(f"runs that never began could not be looked for ({error!r})", file=sys.stderr, flush=True)


class Waits:
    """What this process has seen of runs that did not begin, by its own clock."""

    def __init__(self) -> None:
        self._since: dict[UUID, float] = {}
        self._judged: set[UUID] | None = None

    def new_among(self, not_submitted: Iterable[UUID]) -> set[UUID]:
        """Those of the runs that were not judged yet. None is new at the first look: others judged them."""
        found = set(not_submitted)
        if self._judged is None:
            self._judged = found
        return found - self._judged

    def judge(self, new: Iterable[UUID]) -> None:
        """Let these runs not be new again."""
        self._judged = {*new, *(self._judged or ())}

    def for_seconds(self, states: Sequence[UUID]) -> dict[UUID, float]:
        """How long each of these states has been seen. Others are forgotten."""
        now = time.monotonic()
        self._since = {state: self._since.get(state, now) for state in states}
        return {state: now - since for state, since in self._since.items()}


def start_again(
    api_url: str,
    pool: str,
    queues: Sequence[str] = (),
    waits: Waits | None = None,
    *,
    patience: timedelta = PATIENCE,
) -> list[str]:
    """The names of the runs that start again: those that were seen *Pending* for so long without a process
    here, and those that *Crashed* since the last look because no worker could start their process.
    """
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Scheduled

    waits = waits or Waits()
    with client_of(api_url) as client:
        pending = last_runs(client, [StateType.PENDING], pool=pool, queues=queues)
        found = [run for run in pending if run.state is not None]
        seconds = waits.for_seconds([run.state.id for run in found if run.state is not None])
        crashed = [
            run
            for run in last_runs(client, [StateType.CRASHED], pool=pool, queues=queues)
            if _was_not_submitted(run)
        ]
        new = waits.new_among(run.id for run in crashed)
        state_of = {
            run.id: run.state.id
            for run in (*found, *crashed)
            if run.state is not None
            and (run.id in new or seconds.get(run.state.id, -1.0) >= patience.total_seconds())
        }
        here = _runs_here() if state_of else set()
        names, failed = list[str](), list[Exception]()
        for run, state in state_of.items():
            try:
                now = client.read_flow_run(run) if run not in here else None
                # It may have begun, or somebody may have cancelled it, since it was listed.
                if now is not None and now.state is not None and now.state.id == state:
                    again: State[None] = Scheduled(
                        message="A worker took this run and never began it. It starts again."
                    )
                    client.set_flow_run_state(run, again, force=True)
                    names.append(now.name)
            except Exception as error:  # noqa: BLE001 - one run must not stop the others
                failed.append(error)
                continue
            # Only now: where the server goes away before, the next look tries again.
            if run in new:
                waits.judge([run])
        if failed:
            raise failed[0]
    return names


def _was_not_submitted(run: FlowRun) -> bool:
    """Whether its worker could not start its process, for example because the server went away."""
    return run.state is not None and run.run_count == 0 and _NOT_SUBMITTED in (run.state.message or "")


def _runs_here() -> set[UUID]:
    """The runs whose processes this worker has started and that still work."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, ValueError):
            found.add(UUID(process.environ().get("PREFECT__FLOW_RUN_ID", "")))
    return found
