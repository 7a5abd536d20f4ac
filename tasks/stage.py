"""Run any stage as a Prefect task, or use the result of an earlier run.

``assay.storage.kept_manifests`` keeps a stage's manifest, and checks it before it is used again. The task run
then ends as *Cached*. Prefect stores no result.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateDetails, TaskRun
from prefect.states import Completed

from assay.core.errors import ClusterFault, KillsWorkers, StoreFault, StoreRefusal
from assay.storage.kept_manifests import Finished, keep, kept
from assay.storage.stage import Given, Made, RunContext, Stage

#: Faults of the system that may be gone at the next attempt: a network file system that was away, an
#: interrupted call, too many open files. A full disk or a missing permission is not one of them.
_PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


def may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether the fault may be gone at the next attempt. The ``retry_condition_fn`` of every stage."""
    error = state.data
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, ClusterFault | StoreFault) and not isinstance(error, KillsWorkers | StoreRefusal)


@contextmanager
def _as_it_is(context: RunContext) -> Iterator[RunContext]:
    yield context


def run_stage(
    stage: Stage[Given, Made],
    given: Given,
    context: RunContext,
    *,
    retry_after_seconds: Sequence[float] = (1, 5),
    within: Callable[[RunContext], AbstractContextManager[RunContext]] = _as_it_is,
) -> Finished[Made]:
    """The stage's manifest: that of an earlier run if it is kept; else the stage runs as a Prefect task.

    ``within`` wraps the stage's context while it runs. Prefect neither inspects nor stores what the stage is
    given and makes. Raises what the stage raises.
    """
    before = kept(stage, given, context)

    def run() -> Any:  # Any: it returns a state, which Prefect's types take for the result.
        if before is not None:
            return Completed(name="Cached", message="An earlier run made the same", data=before)
        with within(context) as inner:
            made = stage.run(given, inner)
        keep(stage, given, made, context.home)
        return Completed(data=made)

    task = Task(
        run,
        name=stage.name,
        task_run_name=stage.name,
        retries=len(retry_after_seconds),
        retry_delay_seconds=list(retry_after_seconds),
        retry_condition_fn=may_pass,
        persist_result=False,
        cache_policy=NO_CACHE,
    )
    state = task(return_state=True, wait_for=_sources(given))
    made: Made = state.result()
    return Finished(_remembered(made, state), cached=before is not None)


#: The last manifests of this process, and the task runs that made them.
_MADE: deque[tuple[object, UUID]] = deque(maxlen=64)
_DEPTH = 3


def _remembered(made: Made, state: State[Any]) -> Made:
    if state.state_details.task_run_id is not None:
        _MADE.append((made, state.state_details.task_run_id))
    return made


def _sources(given: object) -> list[State[Any]]:
    """The task runs that made what the stage is given, as Prefect draws the graph of a run from them.

    Their states have no result. Otherwise Prefect would read it from its file again, as that says.
    """
    return [
        Completed(data="made", state_details=StateDetails(task_run_id=run))
        for run in dict.fromkeys(_runs_behind(given, _DEPTH))
    ]


def _runs_behind(given: object, depth: int) -> list[UUID]:
    found = [run for made, run in _MADE if made is given]
    if found or not depth:
        return found[-1:]
    inner: Iterable[object] = ()
    if is_dataclass(given) and not isinstance(given, type):
        inner = (getattr(given, field.name) for field in fields(given))
    elif isinstance(given, Mapping):
        inner = given.values()
    elif isinstance(given, tuple | list):
        inner = given
    return [run for one in inner for run in _runs_behind(one, depth - 1)]
