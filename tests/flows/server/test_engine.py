"""The process of a deployment's run waits for a server that restarts, and takes no result from it."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import pytest
from operation import eventually, free_port
from patience import PATIENCE_SECONDS
from places import ROOT
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType

pytestmark = pytest.mark.usefixtures("prefect_api")

_FLOW = "from prefect import flow\n\n\n@flow(persist_result=False)\ndef started() -> None: ...\n"
#: What Prefect's client logs, at level DEBUG, when it tries again.
_TRIED = b"Another attempt will be made"


@flow(persist_result=False)
def started() -> None: ...


def pending(**state: object) -> UUID:
    """A *Pending* run, as before its worker starts the process."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(started)
        asked = {"state": {"type": "PENDING", **state}, "force": True}
        client.request("POST", "/flow_runs/{id}/set_state", path_params={"id": run.id}, json=asked)
    return run.id


def as_it_is(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


@contextmanager
def engine(run: UUID, api_url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process that a worker starts for the run; its output is in ``folder/log``."""
    (folder / "flow.py").write_text(_FLOW)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server.engine"],
            cwd=folder,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
                "PREFECT_API_AUTH_STRING": os.environ["PREFECT_API_AUTH_STRING"],
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder))),
                "PREFECT_API_URL": api_url,
                "PREFECT_HOME": str(folder / "prefect"),
                "PREFECT_LOGGING_LEVEL": "DEBUG",
                "PREFECT__FLOW_ENTRYPOINT": f"{folder / 'flow.py'}:started",
                "PREFECT__FLOW_RUN_ID": str(run),
            },
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def relay(port: int, api_url: str) -> Iterator[None]:
    """Listen on ``port`` inside this context, and pass everything on to the server."""
    host, _, server_port = api_url.removeprefix("http://").partition("/")[0].partition(":")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(server_port))) as server:
                back = threading.Thread(target=hand_on, args=(server, self.request), daemon=True)
                back.start()
                hand_on(self.request, server)
                back.join()

    class Relay(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Relay((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def hand_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_run_that_starts_while_its_server_is_away_begins_once_it_is_back(
    prefect_api: str, tmp_path: Path
) -> None:
    run, port = pending(), free_port()
    log = tmp_path / "log"
    with engine(run, f"http://127.0.0.1:{port}/api", tmp_path) as process:
        eventually(lambda: _TRIED in log.read_bytes() or process.poll() is not None, "a second attempt")
        assert process.poll() is None, log.read_text()
        assert as_it_is(run).state_type == StateType.PENDING
        with relay(port, prefect_api):
            assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
    assert as_it_is(run).state_type == StateType.COMPLETED


def test_no_answer_brings_in_a_result_before_the_flow_is_loaded(prefect_api: str, tmp_path: Path) -> None:
    marked = tmp_path / "ran"
    (tmp_path / "planted_library.py").write_text(f"open({str(marked)!r}, 'w')\ndumps = loads = str\n")
    serializer = {"type": "pickle", "picklelib": "planted_library"}
    run = pending(data={"storage_key": "nowhere", "serializer": serializer})
    with engine(run, prefect_api, tmp_path) as process:
        assert process.wait(PATIENCE_SECONDS) == 0, (tmp_path / "log").read_text()
    assert as_it_is(run).state_type == StateType.COMPLETED
    assert not marked.exists()
