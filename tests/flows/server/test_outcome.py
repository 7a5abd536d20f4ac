"""What a run came to is what its function returned, whatever somebody makes a Prefect server say of it."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from planted import Bomb
from prefect import State, flow, get_client, runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Pause, PrefectException
from prefect.filesystems import LocalFileSystem
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.states import (
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
    Suspended,
)
from stranger import needs_two_users, set_by_nobody

from assay.storage.home import Home
from assay.storage.stage import RunContext, Stage
from flows.curate import flow as curate
from flows.server.outcome import SetFromOutside, carried_out
from flows.verify import flow as verify
from tasks.server_answers import drop_results, without_results
from tasks.stage import run_stage
from tasks.suspension import NoLongerWanted, _goes_on

pytestmark = pytest.mark.usefixtures("prefect_api")

#: Importing them is what a deployment's run does, and what drops results.
ENTRIES = (curate, verify)


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """Is there once planted code has run."""
    return tmp_path / "ran"


@pytest.fixture
def evil(tmp_path: Path, marked: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """What a state may hold for its result, by what it would do."""

    def file(name: str, serializer: dict[str, str], result: str) -> str:
        path = tmp_path / name
        metadata = {"storage_key": str(path), "serializer": serializer}
        path.write_text(json.dumps({"metadata": metadata, "result": result}))
        return str(path)

    bomb = base64.encodebytes(pickle.dumps(Bomb(marked))).decode()
    (tmp_path / "bare").write_text(bomb)
    os.mkfifo(tmp_path / "fifo")
    calls = json.dumps({"__class__": "subprocess.getoutput", "data": {"cmd": f"touch {marked}"}})
    (tmp_path / "planted_library.py").write_text(
        f"open({str(marked)!r}, 'w')\ndumps = loads = lambda given: given\n"
    )
    sys.path.insert(0, str(tmp_path))
    yield {
        "a pickle": {
            "storage_key": file("pickled", {"type": "pickle"}, bomb),
            "serializer": {"type": "pickle", "picklelib": "cloudpickle"},
        },
        "a pickle without its serializer's name": {"storage_key": str(tmp_path / "bare")},
        "JSON that calls a function": {
            "storage_key": file("calls", {"type": "json"}, calls),
            "serializer": {"type": "json"},
        },
        "a library that is imported": {
            "storage_key": "nowhere",
            "serializer": {"type": "pickle", "picklelib": "planted_library"},
        },
        "a place that never ends": {
            "storage_key": str(tmp_path / "fifo"),
            "serializer": {"type": "json"},
        },
        "a manifest": {"complete": True, "rows": {"read": 1, "kept": 1}},
    }
    sys.path.remove(str(tmp_path))


KINDS = (
    "a pickle",
    "a pickle without its serializer's name",
    "JSON that calls a function",
    "a library that is imported",
    "a place that never ends",
    "a manifest",
)


def struck(run: object, data: object) -> None:
    """Set the state of a flow run as somebody who may log in can."""
    with get_client(sync_client=True) as client:
        state = {"type": "COMPLETED", "data": data, "message": "said somebody"}
        asked = {"state": state, "force": True}
        client.request("POST", "/flow_runs/{id}/set_state", path_params={"id": run}, json=asked)


def before_it_begins(strike: Callable[[UUID], object], *, ran: list[int], value: Any = 1) -> Any:
    """A flow whose run is struck while it is pending."""

    def named() -> str:
        strike(runtime.flow_run.id)
        return "struck"

    @flow(name="struck", flow_run_name=named, persist_result=False)
    def one() -> Any:
        ran.append(1)
        return value

    return one


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_ended_before_it_began_stops_and_reads_nothing(
    evil: dict[str, dict[str, Any]], marked: Path, kind: str
) -> None:
    ran: list[int] = []
    one = before_it_begins(lambda run: struck(run, evil[kind]), ran=ran)
    with pytest.raises(SetFromOutside, match=r"set to Completed from outside \(said somebody\)") as stop:
        carried_out(one, say=print)
    assert stop.value.exit_code == 75
    assert not ran
    assert not marked.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["pending", "running"])
def test_a_run_of_a_deployment_reads_nothing_either(
    evil: dict[str, dict[str, Any]], marked: Path, kind: str, when: str
) -> None:
    """As Prefect's engine does it in a worker's process: it asks the run's last state for its result."""
    ran: list[int] = []

    @flow(name="struck", persist_result=False)
    def itself() -> State[Any]:
        ran.append(1)
        struck(runtime.flow_run.id, evil[kind])
        return Completed(message="of its own")

    one = itself if when == "running" else before_it_begins(lambda run: struck(run, evil[kind]), ran=ran)
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(one)
    with pytest.raises(PrefectException, match="State data is missing"):
        run_flow(one, flow_run=run)
    assert len(ran) == (when == "running")
    assert not marked.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_ended_while_it_worked_keeps_its_own_value_and_says_so(
    evil: dict[str, dict[str, Any]], marked: Path, kind: str
) -> None:
    @flow(name="struck", persist_result=False)
    def one() -> dict[str, Any]:
        struck(runtime.flow_run.id, evil[kind])
        return {"its": "own"}

    said: list[str] = []
    assert carried_out(one, say=said.append) == {"its": "own"}
    was = "set to Completed from outside (said somebody)"
    assert said == [f"warning: this run was {was} meanwhile; the results are whole."]
    assert not marked.exists()


@needs_two_users
@pytest.mark.parametrize("may_log_in", [False, True])
def test_another_user_of_the_machine_runs_nothing(
    evil: dict[str, dict[str, Any]], marked: Path, prefect_api: str, may_log_in: bool
) -> None:
    login = os.environ["PREFECT_API_AUTH_STRING"] if may_log_in else None
    answers: list[int] = []
    state = {"type": "COMPLETED", "data": evil["a pickle"]}
    one = before_it_begins(
        lambda run: answers.append(set_by_nobody(prefect_api, run, state, login)), ran=[], value="its own"
    )
    if may_log_in:
        with pytest.raises(SetFromOutside):
            carried_out(one, say=print)
        assert answers[0] in (200, 201)
    else:
        assert carried_out(one, say=print) == "its own"
        assert answers == [401]
    assert not marked.exists()


def test_a_task_run_that_was_ended_while_it_worked_keeps_its_own_value(
    evil: dict[str, dict[str, Any]], marked: Path, tmp_path: Path
) -> None:
    accepted: list[str] = []

    def its_own(given: str, context: RunContext) -> dict[str, str]:
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(runtime.flow_run.id))]))
        with get_client(sync_client=True) as client:
            deadline = time.monotonic() + 30
            while not (there := client.read_task_runs(flow_run_filter=chosen)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            asked = {"state": {"type": "COMPLETED", "data": evil["a pickle"]}, "force": True}
            path = {"id": there[0].id}
            answer = client.request("POST", "/task_runs/{id}/set_state", path_params=path, json=asked)
            accepted.append(answer.json()["status"])
        return {"its": "own"}

    struck = Stage("struck", 1, dict[str, str], str, lambda given, made, home: True, its_own)

    @flow(name="struck", persist_result=False)
    def one() -> dict[str, str]:
        return run_stage(struck, "k", RunContext(Home(tmp_path / "home"))).manifest

    assert carried_out(one, say=print) == {"its": "own"}
    assert accepted == ["ACCEPT"]
    assert not marked.exists()


def test_what_a_flow_raises_is_raised_as_it_was() -> None:
    fault = ValueError("its own")

    @flow(name="failing", persist_result=False)
    def one() -> None:
        raise fault

    with pytest.raises(ValueError, match="its own") as raised:
        carried_out(one, say=print)
    assert raised.value is fault


@pytest.mark.skipif(
    not hasattr(SyncPrefectClient, "update_server_default_result_storage"), reason="no such setting there"
)
def test_a_server_does_not_say_where_a_commands_failure_is_kept(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"

    @flow(name="failing", persist_result=False)
    def one() -> None:
        raise ValueError("its own")

    block: Any = LocalFileSystem(basepath=str(theirs))
    with get_client(sync_client=True) as client:
        client.update_server_default_result_storage(
            block.save(f"theirs-{tmp_path.parent.name}", overwrite=True)
        )
        try:
            with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: str(ours)}), pytest.raises(ValueError):
                carried_out(one, say=print)
        finally:
            client.clear_server_default_result_storage()
    assert list(ours.iterdir())
    assert not theirs.exists()


def test_why_a_stage_left_its_run_is_raised_and_not_prefects_signal() -> None:
    @flow(name="left", persist_result=False)
    def one() -> None:
        state: State[None] = Suspended(timeout_seconds=60)
        raise Pause(state=state) from NoLongerWanted(state, deployed=True)

    with pytest.raises(NoLongerWanted, match="set to Suspended from outside; what is scored is stored"):
        carried_out(one, say=print)


def test_a_run_goes_on_while_it_is_its_process_that_the_server_waits_for() -> None:
    on: list[State[None]] = [Running(), Crashed()]
    off: list[State[None]] = [
        Completed(),
        Failed(),
        Cancelled(),
        Paused(timeout_seconds=9),
        Scheduled(),
        Pending(),
    ]
    for deployed in (False, True):
        assert all(_goes_on(state, deployed=deployed) for state in on)
        assert not any(_goes_on(state, deployed=deployed) for state in off)
        # A worker sends a signal to the process that it started.
        assert _goes_on(Cancelling(), deployed=deployed) == deployed


async def states_read(run: UUID) -> list[State[Any] | None]:
    async with get_client() as client:
        one = await client.read_flow_run(run)
        many = await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
        return [one.state, *(found.state for found in many), *await client.read_flow_run_states(run)]


def test_no_client_is_given_a_result_that_a_state_names() -> None:
    import asyncio

    @flow(name="read")
    def one() -> None: ...

    drop_results()
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(one).id
        struck(run, {"storage_key": "/somewhere", "serializer": {"type": "pickle"}})
        told = client.request("GET", "/flow_runs/{id}", path_params={"id": run})
        # The server has it; Prefect's own way of reading its answers does not.
        assert b"/somewhere" in told.content
        assert "data" not in told.json()["state"]
        found = [client.read_flow_run(run).state, *client.read_flow_run_states(run)]
    found += asyncio.run(states_read(run))
    assert len(found) >= 5
    assert {state.type for state in found if state is not None} >= {StateType.COMPLETED}
    assert [state.data for state in found if state is not None] == [None] * len(found)


def test_nothing_but_results_of_states_is_dropped() -> None:
    artifact = {"type": "table", "data": "[1]", "nested": [{"type": "COMPLETED", "data": 1, "name": "x"}]}
    assert without_results(artifact) == {
        "type": "table",
        "data": "[1]",
        "nested": [{"type": "COMPLETED", "name": "x"}],
    }
    assert without_results({"type": {"any_": ["COMPLETED"]}, "data": None}) == {
        "type": {"any_": ["COMPLETED"]},
        "data": None,
    }
