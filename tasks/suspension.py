"""Stop scoring within seconds if somebody else ends, suspends or deletes the run.

Prefect's engine looks for a suspension only between two tasks, and one task can score for days. So this
module asks the server every two seconds. It also finds a run that was resumed meanwhile and now belongs to
another process. It leaves the state that the run was set to.
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

#: The event that a run emits once it has stopped its work. Nothing more comes until the run is resumed.
SUSPENDED_EVENT = "assay.curate.suspended"

_LOOK_SECONDS = 2.0


class NoLongerWanted(Resumable):
    """By its state on the server, this run is not to go on."""

    def __init__(self, state: State[Any], *, deployed: bool) -> None:
        self.state = state
        self.deployed = deployed
        """Whether it is a run of a deployment."""
        message = f" ({state.message})" if state.message else ""
        super().__init__(f"the run was set to {state.name} from outside{message}; what is scored is stored")


class Wanted:
    """Checks every two seconds, by the run's state on the server, whether the run is to go on."""

    def __init__(self) -> None:
        self._instead: State[Any] | None = None
        self._deployed = False
        self._ended = threading.Event()
        # The context makes the thread a part of this task's run, and names the server to Prefect.
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
        """Raise NoLongerWanted if the run is not to go on."""
        if self._instead is not None:
            raise NoLongerWanted(self._instead, deployed=self._deployed)

    def _look(self) -> None:
        run_id = UUID(str(runtime.flow_run.id))
        attempt: int | None = None
        while not self._ended.is_set() and self._instead is None:
            with where_reachable(), get_client(sync_client=True) as client:
                while not self._ended.is_set():
                    try:
                        run = client.read_flow_run(run_id)
                    except ObjectNotFound:
                        self._instead = Cancelled(name="Deleted")
                        return
                    # ``runtime.deployment`` would ask the server too, and fail where that is away.
                    self._deployed = run.deployment_id is not None
                    attempt = run.run_count if attempt is None else attempt
                    if run.state is not None and (
                        run.run_count != attempt or not _goes_on(run.state, deployed=self._deployed)
                    ):
                        self._instead = run.state
                        return
                    self._ended.wait(_LOOK_SECONDS)
            self._ended.wait(_LOOK_SECONDS)


def _goes_on(state: State[Any], *, deployed: bool) -> bool:
    """Whether a run in this state goes on in this process.

    A deployment's run that is being cancelled goes on: its worker sends it a signal. So does a run that the
    server took for dead because it got no heartbeat.
    """
    return state.is_running() or state.is_crashed() or (deployed and state.is_cancelling())


def leave(stop: NoLongerWanted) -> NoReturn:
    """End this task's run and this process's part in the flow run, which keeps the state it was set to.

    There are two exceptions. A deployment's run that is only *Paused* becomes *Suspended*: Prefect would let
    it wait in its process, but so it holds no memory and no worker, and starts again when it is resumed. A
    command's run that is being cancelled becomes *Cancelled*, because no worker does that for it. A *Deleted*
    run has no state left to set.
    """
    state = stop.state
    deployed = stop.deployed
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
    """End this task's run on the server: the engine leaves it running, and a resumed run makes another."""
    context = TaskRunContext.get()
    if context is not None:
        client.set_task_run_state(context.task_run.id, Cancelled(message=message), force=True)
