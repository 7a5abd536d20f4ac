"""``make serve`` puts up a server, deployments and a worker on loopback, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from operation import answers, eventually, free_port
from places import ROOT
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Cancelling, Pending, Running
from stranger import in_the_open

from deployments import serve
from deployments.register import end_lost_runs

pytestmark = pytest.mark.operated


def listed(port: int, login: str, kind: str) -> Any:
    """What the server has of that kind."""
    name, _, password = login.partition(":")
    address = f"http://127.0.0.1:{port}/api/{kind}/filter"
    assert httpx.post(address, json={}, timeout=30).status_code == httpx.codes.UNAUTHORIZED
    return httpx.post(address, json={}, timeout=30, auth=(name, password)).json()


@pytest.mark.timed
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_all_of_it_listens_on_loopback_and_ends_with_its_parent(
    tmp_path: Path, ending: signal.Signals
) -> None:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ASSAY_"))}
    log = tmp_path / "log"
    with log.open("wb") as file:
        served = subprocess.Popen(
            [sys.executable, "-m", "deployments.serve", "--port", str(port)],
            cwd=ROOT,
            env={
                **kept,
                "ASSAY_HOME": str(tmp_path / "home"),
                "ASSAY_OUTPUT_ROOTS": f"results={tmp_path / 'results'}",
                "PREFECT_HOME": str(tmp_path / "prefect"),
            },
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    tree: list[psutil.Process] = []
    try:
        eventually(
            lambda: b"started!" in log.read_bytes() or served.poll() is not None,
            log.read_text(),
        )
        assert served.poll() is None, log.read_text()
        assert answers(f"http://127.0.0.1:{port}/api/health")
        told = tmp_path / "home" / "prefect" / f"login-{port}"
        assert told.stat().st_mode & 0o777 == 0o600
        login = told.read_text().strip()
        offered = {one["name"] for one in listed(port, login, "deployments")}
        assert offered == {"curate", "curate-gpu", "verify", "verify-gpu", "evaluate", "evaluate-gpu"}
        assert [one["name"] for one in listed(port, login, "automations")] == ["assay-crashed-runs"]
        tree = [psutil.Process(served.pid), *psutil.Process(served.pid).children(recursive=True)]
        assert in_the_open(login, tree, tmp_path) == {told}
        assert login.partition(":")[2] not in log.read_text()
        heard = {
            connection.laddr.ip
            for process in tree
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert heard == {"127.0.0.1"}
    finally:
        served.send_signal(ending)
    began = time.monotonic()
    code = served.wait(30)
    _, alive = psutil.wait_procs(tree, timeout=15)
    assert not alive, json.dumps([process.cmdline() for process in alive])
    assert time.monotonic() - began < 20
    if ending == signal.SIGINT:
        assert code == 0
        assert "Stopped." in log.read_text()


@pytest.mark.parametrize(("devices", "queues"), [([], ["cpu"]), (["0", "1"], ["cpu", "gpu"])])
def test_a_worker_serves_the_queues_of_what_its_machine_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], devices: list[str], queues: list[str]
) -> None:
    monkeypatch.setattr(serve, "visible_devices", lambda: devices)
    assert serve.queues_here() == queues
    assert ("wait for another worker" in capsys.readouterr().err) == (queues == ["cpu"])


def test_runs_that_nobody_has_any_more_are_ended_and_free_their_place(prefect_api: str) -> None:
    made: list[UUID] = []

    @flow
    def curate() -> None: ...

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(curate)
        deployment = client.create_deployment(flow_id, name="lost", concurrency_limit=1)
        for _ in range(2):
            made.append(client.create_flow_run_from_deployment(deployment).id)
        lost, waiting = made
        assert client.set_flow_run_state(lost, Pending()).status == SetStateStatus.ACCEPT
        client.set_flow_run_state(lost, Running())
        assert client.set_flow_run_state(waiting, Pending()).status == SetStateStatus.REJECT
        assert end_lost_runs(prefect_api) == [client.read_flow_run(lost).name]
        assert client.read_flow_run(lost).state_type == StateType.CRASHED
        assert client.read_flow_run(waiting).state_type == StateType.SCHEDULED
        assert client.set_flow_run_state(waiting, Pending()).status == SetStateStatus.ACCEPT
        client.set_flow_run_state(waiting, Cancelling(), force=True)
        # Of another queue: its worker may have it.
        assert end_lost_runs(prefect_api, queue="gpu") == []
        end_lost_runs(prefect_api)
        assert client.read_flow_run(waiting).state_type == StateType.CANCELLED
        client.delete_deployment(deployment)
