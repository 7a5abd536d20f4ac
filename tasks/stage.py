"""What all stages share: a key that says what a result depends on, and no trust in a cache unseen.

Prefect keeps a stage's manifest as JSON under the stage's key, across runs. It does not look whether the
files a manifest names are still there, so that is done here before the task runs: where they are missing
or altered the stage is computed again (``refresh_cache``), and the run says so.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import msgspec
from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.serializers import JSONSerializer
from prefect.utilities.annotations import opaque

from assay.core.errors import ClusterFault, StoreFault, StoreRefusal
from assay.storage.home import Home
from assay.storage.sealed import Altered, decoded, is_as_sealed, sealed

M = TypeVar("M")

#: Faults of the system that another attempt may not meet: a network file system that was away, an
#: interrupted call, too many open files. A full disk or a missing permission is not among them.
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
class Finished(Generic[M]):
    """A stage's manifest, and whether it was there already."""

    manifest: M
    cached: bool


def key_given(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """A stage's ``cache_key_fn``: the key it is called with, which names all that its result depends on."""
    return str(parameters["key"])


def may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """A stage's ``retry_condition_fn``: whether what went wrong may not happen again."""
    error = state.data
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, ClusterFault | StoreFault) and not isinstance(error, StoreRefusal)


def stage_task(
    *, name: str, retries: int, retry_delay_seconds: float | list[float]
) -> Callable[[Callable[..., Any]], Task[Any, Any]]:
    """A decorator that makes a stage's function a Prefect task whose result is kept under its key."""
    return task(
        name=name,
        task_run_name=name,
        persist_result=True,
        result_serializer="json",
        cache_key_fn=key_given,
        retries=retries,
        retry_delay_seconds=retry_delay_seconds,
        retry_condition_fn=may_pass,
    )


def as_json(manifest: object, key: str) -> Any:
    """The manifest of the stage with that key, and its digest, of JSON's own types.

    Prefect's JSON serializer keeps these as they are.
    """
    return sealed({"manifest": msgspec.to_builtins(manifest)}, about=key)


def manifest_of(result: Mapping[str, Any], kind: type[M], key: str) -> M:
    """What ``as_json`` was given; Altered where the result is not what it made for that key."""
    if not is_as_sealed(result, about=key):
        raise Altered("its digest is not that of its content")
    return msgspec.convert(result["manifest"], kind)


def results_folder(home: Home) -> Path:
    """Where Prefect keeps the manifests of finished stages."""
    return home.prefect / "results"


def run_stage(
    task: Task[Any, Any],
    kind: type[M],
    *,
    key: str,
    home: Home,
    is_current: Callable[[M], bool],
    say: Callable[[str], None],
    arguments: Mapping[str, object],
) -> Finished[M]:
    """The stage's manifest, from the cache where that is current, else by running the task's function.

    ``arguments`` go to the task as they are: Prefect neither looks into them nor keeps them. What the
    task raises is raised here.
    """
    name = str(task.name)
    # Told apart by the stage, so that two stages with one key (of no parts, say) stay two.
    key = f"{name}-{key}"
    try:
        kept = _kept_manifest(key, kind, home)
    except Altered as error:
        kept = None
        path = results_folder(home) / key
        say(f"{name}: {path} is damaged, or of an earlier version ({error}), so this stage runs again")
    current = kept is not None and is_current(kept)
    if kept is not None and not current:
        say(f"{name}: files of an earlier run are missing or altered, so this stage runs again")
    prepared = task.with_options(
        result_storage=results_folder(home), cache_result_in_memory=False, refresh_cache=not current
    )
    unseen = {parameter: opaque(value) for parameter, value in arguments.items()}
    state = cast("State[Any]", prepared(key=key, **unseen, return_state=True))
    result = state.result()
    return Finished(manifest_of(result, kind, key), cached=state.name == "Cached")


class _Metadata(msgspec.Struct):
    serializer: dict[str, Any]


class _Kept(msgspec.Struct):
    """What Prefect 3 writes for a result: ``prefect.results.ResultRecord``, as far as it is needed."""

    metadata: _Metadata
    result: str


_OUR_SERIALIZER = JSONSerializer().model_dump(mode="json")

#: Keys by which Prefect's JSON names what is imported and called when it is read.
_NAMES_CODE = ('"__class__"', '"__exc_type__"')


def _kept_manifest(key: str, kind: type[M], home: Home) -> M | None:
    """What Prefect keeps under the key; None where there is nothing, Altered where it is not what we wrote.

    A kept result names the serializer that Prefect is to read it with, pickle among them, and JSON may
    name classes to be imported. So the file is read here, with neither, before Prefect is let near it.
    """
    try:
        kept = msgspec.json.decode((results_folder(home) / key).read_bytes(), type=_Kept)
        if kept.metadata.serializer != _OUR_SERIALIZER:
            raise Altered("Prefect is to read it in another way")
        content = decoded(kept.result)
        # Written anew, so that no letter of a key is hidden behind an escape.
        if any(name in json.dumps(content) for name in _NAMES_CODE):
            raise Altered("it names code that Prefect is to run")
        return manifest_of(content, kind, key)
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise Altered(str(error)) from error
