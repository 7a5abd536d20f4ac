"""A Prefect task of any stage, whose cached result is looked at before it is believed.

Prefect keeps a stage's manifest as JSON under the stage's key, across runs. It does not check that the files
which a manifest names are still there, so that is done here before the task runs: where they are missing or
altered, the stage runs again (``refresh_cache``), and a line says so.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.serializers import JSONSerializer

from assay.core.errors import ClusterFault, StoreFault, StoreRefusal
from assay.storage.home import Home
from assay.storage.sealed import Altered, decoded, is_as_sealed, sealed
from assay.storage.stage import Given, Made, RunContext, Stage

Returned = TypeVar("Returned")

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
class Finished(Generic[Made]):
    """A stage's manifest, and whether it was there already."""

    manifest: Made
    cached: bool


def may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """A stage's ``retry_condition_fn``: whether what went wrong may not happen again."""
    error = state.data
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, ClusterFault | StoreFault) and not isinstance(error, StoreRefusal)


def _as_json(manifest: object, key: str) -> Any:
    """The manifest of the stage with that key, and its digest, of JSON's own types.

    Prefect's JSON serializer keeps these as they are.
    """
    return sealed({"manifest": msgspec.to_builtins(manifest)}, about=key)


def _manifest_of(result: Mapping[str, Any], kind: type[Made], key: str) -> Made:
    """What ``_as_json`` was given; Altered where the result is not what it made for that key."""
    if not is_as_sealed(result, about=key):
        raise Altered("its digest is not that of its content")
    return msgspec.convert(result["manifest"], kind)


def results_folder(home: Home) -> Path:
    """Where Prefect keeps the manifests of finished stages."""
    return home.prefect / "results"


@contextmanager
def _as_it_is(context: RunContext) -> Iterator[RunContext]:
    yield context


def _show_nothing(made: object) -> None:
    """Prefect's pages show the stage's states, and that is enough."""


def run_stage(
    stage: Stage[Given, Made],
    given: Given,
    context: RunContext,
    *,
    retry_after_seconds: Sequence[float] = (1, 5),
    within: Callable[[RunContext], AbstractContextManager[RunContext]] = _as_it_is,
    show: Callable[[Made], None] = _show_nothing,
) -> Finished[Made]:
    """What the stage makes, from the cache where that is current, else by running it as a Prefect task.

    ``within`` wraps the stage's context for as long as it runs; ``show`` is given what it made. Prefect
    neither looks into what the stage is given nor keeps it. What the stage raises is raised here.
    """

    def make(context: RunContext) -> Made:
        with within(context) as inner:
            made = stage.run(given, inner)
        show(made)
        return made

    if stage.key is None:
        always = _task(stage.name, retry_after_seconds, lambda: make(context)).with_options(
            persist_result=False, cache_policy=NO_CACHE
        )
        return Finished(always(), cached=False)
    # Named after the stage too, so that two stages with one key (of no parts, say) stay two.
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
    state = cached(return_state=True)
    return Finished(_manifest_of(state.result(), stage.made, key), cached=state.name == "Cached")


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
    """What is kept of the stage; None where there is nothing, or nothing that may be used again."""
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
    """What Prefect 3 writes for a result: ``prefect.results.ResultRecord``, as far as it is needed."""

    metadata: _Metadata
    result: str


_OUR_SERIALIZER = JSONSerializer().model_dump(mode="json")

#: Keys by which Prefect's JSON names what is imported and called when it is read.
_NAMES_CODE = ('"__class__"', '"__exc_type__"')


def _kept_manifest(key: str, kind: type[Made], home: Home) -> Made | None:
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
        return _manifest_of(content, kind, key)
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise Altered(str(error)) from error
