"""A run that somebody else ends, suspends or deletes while it scores: noticed within seconds, left as it is.

Prefect's engine looks for a suspension between two tasks, and one task scores for days. So the server is
asked here, which also finds a run that was resumed meanwhile and now belongs to another process.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any, NoReturn
from uuid import UUID

from prefect import State, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import TaskRunContext
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound, Pause
from prefect.states import Cancelled, Suspended

from assay.core.errors import Resumable
from tasks.pages import where_reachable

#: Emitted once a run has stopped its work: the last that is heard of it until it is resumed.
SUSPENDED_EVENT = "assay.curate.suspended"

_LOOK_SECONDS = 2.0


class NoLongerWanted(Resumable):
    """The server no longer has this run working."""

    def __init__(self, state: State[Any]) -> None:
        self.state = state
        message = f" ({state.message})" if state.message else ""
        super().__init__(f"the run was set to {state.name} from outside{message}; what is scored is stored")


class Wanted:
    """Looks every two seconds whether the server still has this process's run working."""

    def __init__(self) -> None:
        self._instead: State[Any] | None = None
        self._ended = threading.Event()
        # The thread belongs to this task's run: Prefect knows its server by the context.
        self._looking = threading.Thread(
            target=contextvars.copy_context().run, args=(self._look,), daemon=True, name="suspension"
        )

    def __enter__(self) -> Wanted:
        self._looking.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._looking.join(timeout=_LOOK_SECONDS)

    def leave_if_unwanted(self) -> None:
        """Nothing, or NoLongerWanted."""
        if self._instead is not None:
            raise NoLongerWanted(self._instead)

    def _look(self) -> None:
        run_id = UUID(str(runtime.flow_run.id))
        deployed = runtime.deployment.id is not None
        attempt: int | None = None
        while not self._ended.is_set() and self._instead is None:
            with where_reachable(), get_client(sync_client=True) as client:
                while not self._ended.is_set():
                    try:
                        run = client.read_flow_run(run_id)
                    except ObjectNotFound:
                        self._instead = Cancelled(name="Deleted")
                        return
                    attempt = run.run_count if attempt is None else attempt
                    if run.state is not None and (
                        run.run_count != attempt or not _goes_on(run.state, deployed=deployed)
                    ):
                        self._instead = run.state
                        return
                    self._ended.wait(_LOOK_SECONDS)
            self._ended.wait(_LOOK_SECONDS)


def _goes_on(state: State[Any], *, deployed: bool) -> bool:
    """Whether a run in that state goes on in this process.

    One of a deployment that is being cancelled gets a signal from the worker that started it. One that was
    taken for dead while the server heard nothing of it goes on.
    """
    return state.is_running() or state.is_crashed() or (deployed and state.is_cancelling())


def leave(stop: NoLongerWanted) -> NoReturn:
    """End this task's run and this process's part in the flow run, whose state stays what it was set to.

    A deployment's run that is merely *Paused*, which Prefect would have wait in its process, is made
    *Suspended*: it holds no memory and no place, and is started again when it is resumed. A command's run
    that is being cancelled, for which no worker looks, is *Cancelled*. Of one that is *Deleted* the server
    has nothing left to set.
    """
    state = stop.state
    deployed = runtime.deployment.id is not None
    flow_run_id = UUID(str(runtime.flow_run.id))
    with where_reachable(), get_client(sync_client=True) as client:
        _end_task_run(client, str(stop))
        if state.is_cancelling() and not deployed:
            state = Cancelled(message=state.message)
            client.set_flow_run_state(flow_run_id, state, force=True)
        if state.is_paused() and deployed:
            if not state.state_details.pause_reschedule:
                state = Suspended(
                    message=state.message, pause_expiration_time=state.state_details.pause_timeout
                )
                client.set_flow_run_state(flow_run_id, state, force=True)
            emit_event(
                event=SUSPENDED_EVENT, resource={"prefect.resource.id": f"prefect.flow-run.{flow_run_id}"}
            )
    raise Pause(state=state) from stop


def _end_task_run(client: SyncPrefectClient, message: str) -> None:
    """Say that this task's run is over: the engine leaves it running, and a resumed run makes another."""
    context = TaskRunContext.get()
    if context is not None:
        client.set_task_run_state(context.task_run.id, Cancelled(message=message), force=True)
