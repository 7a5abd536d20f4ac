"""A run that a worker took and never began starts again. Live runs, and other workers' runs, do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID, uuid4

import httpx
import pytest
from listening import listening
from patience import PATIENCE_SECONDS
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running

from deployments import never_begun, register
from deployments.never_begun import Waits, start_again
from tasks.prefect_settings import retrying

AT_ONCE = timedelta(0)


@flow
def taken() -> None: ...


@pytest.fixture
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def pool(client: SyncPrefectClient) -> Iterator[str]:
    name = f"never-begun-{uuid4().hex[:8]}"
    template = json.loads((register.ROOT / "deployments/work_pool.json").read_bytes())
    client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    yield name
    client.request("DELETE", "/work_pools/{name}", path_params={"name": name})


def run_in(client: SyncPrefectClient, pool: str, queue: str, *states: State[None]) -> UUID:
    """A run in that queue that went through these states."""
    deployment = client.create_deployment(
        client.create_flow(taken), name=f"{queue}-{uuid4().hex}", work_pool_name=pool, work_queue_name=queue
    )
    run = client.create_flow_run_from_deployment(deployment)
    for state in states:
        client.set_flow_run_state(run.id, state, force=True)
    return run.id


@contextmanager
def living(run: UUID) -> Iterator[None]:
    """A child process that stands for that run, alive inside this context."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        env={**os.environ, "PREFECT__FLOW_RUN_ID": str(run)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.communicate(b"\n")


def test_a_run_without_a_process_starts_again(prefect_api: str, client: SyncPrefectClient, pool: str) -> None:
    run = run_in(client, pool, "cpu", Pending())
    name = client.read_flow_run(run).name
    # Not yet: its worker may still be waiting for an answer.
    assert start_again(prefect_api, pool, ["cpu"]) == []
    assert client.read_flow_run(run).state_type == StateType.PENDING
    assert start_again(prefect_api, pool, ["cpu"], patience=AT_ONCE) == [name]
    state = client.read_flow_run(run).state
    assert state is not None
    assert state.is_scheduled()
    assert state.message == "A worker took this run and never began it. It starts again."


def test_a_run_whose_process_lives_goes_on(prefect_api: str, client: SyncPrefectClient, pool: str) -> None:
    run = run_in(client, pool, "cpu", Pending())
    with living(run):
        assert start_again(prefect_api, pool, ["cpu"], patience=AT_ONCE) == []
    assert client.read_flow_run(run).state_type == StateType.PENDING


def test_runs_that_have_begun_or_are_of_other_workers_stay_as_they_are(
    prefect_api: str, client: SyncPrefectClient, pool: str
) -> None:
    others = [
        run_in(client, pool, "cpu", Pending(), Running()),
        run_in(client, pool, "cpu", Pending(), Cancelling()),
        run_in(client, pool, "gpu", Pending()),
    ]
    before = [client.read_flow_run(run).state_type for run in others]
    assert start_again(prefect_api, pool, ["cpu"], patience=AT_ONCE) == []
    assert start_again(prefect_api, f"not-{pool}", patience=AT_ONCE) == []
    assert [client.read_flow_run(run).state_type for run in others] == before
    # Without queues it looks after the whole pool: it starts the run in the queue gpu.
    assert len(start_again(prefect_api, pool, patience=AT_ONCE)) == 1


def test_patience_is_counted_from_when_a_run_was_first_seen(
    prefect_api: str, client: SyncPrefectClient, pool: str
) -> None:
    long_ago: State[None] = Pending(timestamp=datetime.now(UTC) - timedelta(days=1))
    name = client.read_flow_run(run_in(client, pool, "cpu", long_ago)).name
    waits, patience = Waits(), timedelta(seconds=0.3)
    # The server's time does not count: its clock may differ from the worker's.
    assert start_again(prefect_api, pool, ["cpu"], waits, patience=patience) == []
    time.sleep(0.4)
    assert start_again(prefect_api, pool, ["cpu"], waits, patience=patience) == [name]


@pytest.mark.parametrize("then", [Cancelled(), Completed(), Running(), Pending()], ids=lambda then: then.name)
def test_a_run_that_went_on_since_it_was_seen_does_not_start_again(
    prefect_api: str,
    client: SyncPrefectClient,
    pool: str,
    monkeypatch: pytest.MonkeyPatch,
    then: State[None],
) -> None:
    run = run_in(client, pool, "cpu", Pending())

    def set_meanwhile() -> set[UUID]:
        client.set_flow_run_state(run, then, force=True)
        return set()

    monkeypatch.setattr(never_begun, "_runs_here", set_meanwhile)
    assert start_again(prefect_api, pool, ["cpu"], patience=AT_ONCE) == []
    assert client.read_flow_run(run).state_type == then.type


def test_an_odd_answer_does_not_end_the_looks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Maintenance(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Back soon</html>")

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    monkeypatch.setattr(never_begun, "_LOOK_SECONDS", 0.05)
    with ThreadingHTTPServer(("127.0.0.1", 0), Maintenance) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        never_begun.watch(f"http://127.0.0.1:{server.server_port}/api", "any", ["cpu"])
        said, deadline = "", time.monotonic() + PATIENCE_SECONDS
        while said.count("could not be looked for") < 2:
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
            said += capfd.readouterr().err
        monkeypatch.setattr(never_begun, "_LOOK_SECONDS", 3600.0)
        server.shutdown()


def test_a_run_whose_process_could_not_be_started_starts_again_once(
    prefect_api: str, client: SyncPrefectClient, pool: str
) -> None:
    said = "Failed to submit flow run to infrastructure: InvalidMessage: no response"
    not_submitted: State[None] = Crashed(message=said)
    run_in(client, pool, "cpu", Pending(), not_submitted)
    waits = Waits()
    # This run crashed before the worker looked for the first time, so it stays as it is.
    assert start_again(prefect_api, pool, ["cpu"], waits) == []
    run = run_in(client, pool, "cpu", Pending(), not_submitted)
    run_in(client, pool, "cpu", Pending(), Running(), Crashed(message="Process exited with code 137"))
    name = client.read_flow_run(run).name
    assert start_again(prefect_api, pool, ["cpu"], waits) == [name]
    client.set_flow_run_state(run, not_submitted, force=True)
    assert start_again(prefect_api, pool, ["cpu"], waits) == []


@contextmanager
def that_goes_away(prefect_api: str) -> Iterator[tuple[str, list[bool]]]:
    """The address of the real server, and whether it is away for each of the next runs that are to be set."""
    away: list[bool] = []

    class Between(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if away and self.path.endswith("/set_state") and away.pop(0):
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = httpx.request(
                self.command,
                f"{prefect_api}{self.path}",
                content=body,
                headers=[(name, value) for name, value in self.headers.items() if name.lower() != "host"],
                timeout=PATIENCE_SECONDS,
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with listening(Between) as address:
        yield address, away


def test_a_run_that_could_not_be_set_since_the_server_went_away_is_set_at_the_next_look(
    prefect_api: str, client: SyncPrefectClient, pool: str
) -> None:
    not_submitted: State[None] = Crashed(message="Failed to submit flow run to infrastructure: no response")
    waits = Waits()
    with that_goes_away(prefect_api) as (address, away), retrying(0):
        assert start_again(address, pool, ["cpu"], waits) == []
        runs = [run_in(client, pool, "cpu", Pending(), not_submitted) for _ in range(2)]
        # At the first look none of them is set, and at the second the one behind the one that cannot be set.
        for is_away in ([True, True], [True, False]):
            away += is_away
            with pytest.raises(httpx.TransportError):
                start_again(address, pool, ["cpu"], waits)
            assert away == []
        (first,) = (run for run in runs if client.read_flow_run(run).state_type == StateType.SCHEDULED)
        client.set_flow_run_state(first, not_submitted, force=True)
        (other,) = {*runs} - {first}
        assert start_again(address, pool, ["cpu"], waits) == [client.read_flow_run(other).name]
        client.set_flow_run_state(other, not_submitted, force=True)
        # Each starts again once.
        assert start_again(address, pool, ["cpu"], waits) == []
