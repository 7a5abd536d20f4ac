"""Run any stage as a Prefect task, and check its cached result before it is used.

Prefect keeps a stage's manifest as JSON under the stage's key, across runs. It does not check that the files
in the manifest still exist. So this module checks them before the task runs. If files are missing or altered,
the stage runs again (``refresh_cache``), and a line reports it.
"""

from __future__ import annotations

import errno
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateDetails, TaskRun
from prefect.serializers import JSONSerializer
from prefect.states import Completed

from assay.core.errors import ClusterFault, KillsWorkers, StoreFault, StoreRefusal
from assay.storage.home import Home
from assay.storage.sealed import Altered, decoded, is_as_sealed, sealed
from assay.storage.stage import Given, Made, RunContext, Stage

Returned = TypeVar("Returned")

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


@dataclass(frozen=True, slots=True)
class Finished(Generic[Made]):
    """A stage's manifest, and whether it came from the cache."""

    manifest: Made
    cached: bool


def may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether the fault may be gone at the next attempt. The ``retry_condition_fn`` of every stage."""
    error = state.data
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, ClusterFault | StoreFault) and not isinstance(error, KillsWorkers | StoreRefusal)


def _as_json(manifest: object, key: str) -> Any:
    """The manifest of the stage with this key, and its digest, in plain JSON types.

    Prefect's JSON serializer stores such types unchanged.
    """
    return sealed({"manifest": msgspec.to_builtins(manifest)}, about=key)


def _manifest_of(result: Mapping[str, Any], kind: type[Made], key: str) -> Made:
    """The manifest in a result of ``_as_json``. Altered where ``_as_json`` did not make it for this key."""
    if not is_as_sealed(result, about=key):
        raise Altered("its digest is not that of its content")
    return msgspec.convert(result["manifest"], kind)


def results_folder(home: Home) -> Path:
    """The folder in which Prefect keeps the manifests of finished stages."""
    return home.prefect / "results"


@contextmanager
def _as_it_is(context: RunContext) -> Iterator[RunContext]:
    yield context


def _show_nothing(made: object) -> None:
    """Show nothing but the states that Prefect's pages show of every stage."""


def run_stage(
    stage: Stage[Given, Made],
    given: Given,
    context: RunContext,
    *,
    retry_after_seconds: Sequence[float] = (1, 5),
    within: Callable[[RunContext], AbstractContextManager[RunContext]] = _as_it_is,
    show: Callable[[Made], None] = _show_nothing,
) -> Finished[Made]:
    """What the stage makes: from the cache where that is current, else by running it as a Prefect task.

    ``within`` wraps the stage's context while it runs; ``show`` gets what the stage made. Prefect neither
    inspects nor stores what the stage is given. Raises what the stage raises.
    """

    def make(context: RunContext) -> Made:
        with within(context) as inner:
            made = stage.run(given, inner)
        show(made)
        return made

    made_from = _sources(given)
    if stage.key is None:
        always = _task(stage.name, retry_after_seconds, lambda: make(context)).with_options(
            persist_result=False, cache_policy=NO_CACHE
        )
        ended = always(return_state=True, wait_for=made_from)
        return Finished(_remembered(ended.result(), ended), cached=False)
    # The stage's name is part of the key, so that two stages with the same digest have two keys.
    key = f"{stage.name}-{stage.digest(given)}"
    kept = _trusted(stage, given, key, context)
    cached = _task(stage.name, retry_after_seconds, lambda: _as_json(make(context), key)).with_options(
        persist_result=True,
        result_serializer="json",
        result_storage=results_folder(context.home),
        cache_key_fn=lambda run, parameters: key,
        cache_result_in_memory=False,
        refresh_cache=kept is None,
    )
    state = cached(return_state=True, wait_for=made_from)
    made = _remembered(_manifest_of(state.result(), stage.made, key), state)
    return Finished(made, cached=state.name == "Cached")


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


def _task(name: str, retry_after_seconds: Sequence[float], run: Callable[[], Returned]) -> Task[[], Returned]:
    return Task(
        run,
        name=name,
        task_run_name=name,
        retries=len(retry_after_seconds),
        retry_delay_seconds=list(retry_after_seconds),
        retry_condition_fn=may_pass,
    )


def _trusted(stage: Stage[Given, Made], given: Given, key: str, context: RunContext) -> Made | None:
    """The manifest that is kept of the stage. None where there is none, or none that may be used again."""
    try:
        kept = _kept_manifest(key, stage.made, context.home)
    except Altered as error:
        path = results_folder(context.home) / key
        context.say(
            f"{stage.name}: {path} is damaged, or of an earlier version ({error}), so this stage runs again"
        )
        return None
    if kept is None or stage.is_current(given, kept, context.home):
        return kept
    if stage.says_when_stale:
        context.say(f"{stage.name}: files of an earlier run are missing or altered, so this stage runs again")
    return None


class _Metadata(msgspec.Struct):
    serializer: dict[str, Any]


class _Kept(msgspec.Struct):
    """The parts that are needed of what Prefect 3 writes for a result (``prefect.results.ResultRecord``)."""

    metadata: _Metadata
    result: str


_OUR_SERIALIZER = JSONSerializer().model_dump(mode="json")

#: Keys in Prefect's JSON that name code, which is imported and called when the JSON is read.
_NAMES_CODE = ('"__class__"', '"__exc_type__"')


def _kept_manifest(key: str, kind: type[Made], home: Home) -> Made | None:
    """The manifest that Prefect keeps under the key. None where there is none; Altered where it is not ours.

    A kept result names the serializer that Prefect reads it with, which can be pickle, and its JSON may name
    classes to import. So the file is first read here, without serializer and without imports.
    """
    try:
        kept = msgspec.json.decode((results_folder(home) / key).read_bytes(), type=_Kept)
        if kept.metadata.serializer != _OUR_SERIALIZER:
            raise Altered("it names another serializer")
        content = decoded(kept.result)
        # Write it anew first: in the file, an escape could hide a letter of a key.
        if any(name in json.dumps(content) for name in _NAMES_CODE):
            raise Altered("it names code that Prefect would run")
        return _manifest_of(content, kind, key)
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise Altered(str(error)) from error
