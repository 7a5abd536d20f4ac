"""The embedded server serves on loopback, and never outlives whoever started it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from places import ROOT
from stranger import asked_by_nobody, in_the_open, needs_two_users, read_by_nobody
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from assay.core.errors import ServerFault
from flows.server import embedded as embedded_server
from flows.server.embedded import EmbeddedServer

pytestmark = pytest.mark.slow

STARTED = """
import sys, time
from pathlib import Path
from flows.server.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.start()
if sys.argv[2] == "serving":
    server.wait(120, lambda line: None)
print(server.process_id, flush=True)
time.sleep(600)
"""


def until(true: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


def is_alive(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def answers(server: EmbeddedServer) -> bool:
    try:
        with urllib.request.urlopen(f"{server.api_url}/health", timeout=2) as answer:
            return bool(answer.read() == b"true")
    except OSError:
        return False


def status(server: EmbeddedServer, login: str | None) -> int:
    """Of the answer to somebody who asks for all flow runs."""
    auth = None if login is None else httpx.BasicAuth(*login.split(":"))
    return httpx.post(f"{server.api_url}/flow_runs/filter", json={}, auth=auth, timeout=30).status_code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="module")
def two_servers(folder: Path) -> Iterator[tuple[EmbeddedServer, EmbeddedServer]]:
    servers = (EmbeddedServer(folder), EmbeddedServer(folder))
    for server in servers:
        server.start()
    try:
        for server in servers:
            server.wait(120, print)
        yield servers
    finally:
        for server in servers:
            server.stop()


def test_two_servers_can_start_at_once_on_one_empty_folder(
    two_servers: tuple[EmbeddedServer, EmbeddedServer], folder: Path
) -> None:
    first, second = two_servers
    assert answers(first)
    assert answers(second)
    assert first.address != second.address
    assert (folder / "prefect.db").is_file()
    assert folder.stat().st_mode & 0o777 == 0o700
    made = {path.name: path.stat().st_mode & 0o077 for path in folder.rglob("*")}
    assert set(made) >= {"prefect.db", "server.log", "starting.lock"}
    assert set(made.values()) == {0}, made


def test_every_listener_is_on_loopback(two_servers: tuple[EmbeddedServer, EmbeddedServer]) -> None:
    for server in two_servers:
        listening = [
            connection.laddr
            for connection in psutil.Process(server.process_id).net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_server_takes_its_own_login_alone(two_servers: tuple[EmbeddedServer, EmbeddedServer]) -> None:
    server, other = two_servers
    assert status(server, None) == 401
    assert status(server, other.login) == 401
    assert status(server, server.login) == 200
    with connect(f"{server.api_url.replace('http', 'ws')}/events/in", subprotocols=["prefect"]) as events:
        events.send(json.dumps({"type": "auth", "token": other.login}))
        with pytest.raises(ConnectionClosed):
            events.recv()


def test_a_runs_own_server_has_no_pages(two_servers: tuple[EmbeddedServer, EmbeddedServer]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(two_servers[0].address, timeout=10)


@needs_two_users
def test_another_user_gets_no_answer_and_finds_no_login(
    two_servers: tuple[EmbeddedServer, EmbeddedServer], folder: Path
) -> None:
    for server in two_servers:
        assert asked_by_nobody(f"{server.api_url}/flow_runs/filter", {})[0] == 401
        assert asked_by_nobody(f"{server.api_url}/flow_runs/filter", {}, server.login)[0] == 200
        process = psutil.Process(server.process_id)
        assert process.environ()["PREFECT_SERVER_API_AUTH_STRING"] == server.login
        assert read_by_nobody(Path(f"/proc/{server.process_id}/environ")) is None
        assert in_the_open(server.login, [process], folder) == set()
    assert (folder / "server.log").is_file()
    assert (folder / "prefect.db").is_file()


@pytest.mark.faults
def test_a_server_that_dies_is_started_again_at_its_address_with_its_login(
    two_servers: tuple[EmbeddedServer, EmbeddedServer],
) -> None:
    server, _ = two_servers
    address, before = server.address, server.process_id
    os.kill(before, signal.SIGKILL)
    assert until(lambda: server.process_id != before and answers(server), 60)
    assert server.address == address
    assert status(server, server.login) == 200


def test_a_forked_child_does_not_keep_the_server_alive(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.start()
    process_id = server.process_id
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        server.wait(120, print)
        server.stop()
        assert not is_alive(process_id)
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("when", ["starting", "serving"])
@pytest.mark.faults
def test_the_server_dies_with_a_parent_that_is_killed(folder: Path, when: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTED, str(folder), when],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    server = int(parent.stdout.readline())
    assert is_alive(server)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert until(lambda: not is_alive(server), 10)


def test_a_slow_start_is_told_and_ends_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_server, "_NOTICE_AFTER_SECONDS", 0.1)
    said: list[str] = []
    server = EmbeddedServer(tmp_path)
    server.start()
    process_id = server.process_id
    with pytest.raises(ServerFault, match=r"did not start within 0\.5 s.*ASSAY_SERVER_START_SECONDS"):
        server.wait(0.5, said.append)
    assert said == ["Waiting for the embedded Prefect server to start (up to 0.5 s) …"]
    assert until(lambda: not is_alive(process_id), 10)


def test_a_full_disk_is_named_though_the_servers_log_is_on_it(small_disk: Path) -> None:
    server = EmbeddedServer(small_disk / "prefect")
    server.start()
    with pytest.raises(ServerFault, match=r"No space left on device, so .* Make room") as refused:
        server.wait(120, print)
    assert str(small_disk) in str(refused.value)
    assert server.log.read_bytes() == b"", "the disk was full before anything could be said"


def test_a_server_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").mkdir()
    server = EmbeddedServer(tmp_path)
    server.start()
    said = r"ended while starting .*unable to open database.*server\.log.*move .*prefect\.db away"
    with pytest.raises(ServerFault, match=said):
        server.wait(120, print)


def test_a_server_whose_files_are_damaged_begins_a_new_history_and_says_so(tmp_path: Path) -> None:
    damaged = b"this is no database, and long enough to be seen as none" * 20
    for name in ("prefect.db", "prefect.db-wal", "server.log", "memo_store.toml", "starting.lock"):
        (tmp_path / name).write_bytes(damaged)
    said: list[str] = []
    server = EmbeddedServer(tmp_path)
    server.start()
    try:
        server.wait(120, said.append)
        assert answers(server)
    finally:
        server.stop()
    (warning,) = [line for line in said if line.startswith("warning")]
    (aside,) = tmp_path.glob("prefect.db.damaged-*Z")
    assert f"is begun. The old one is {aside} (file is not a database)" in warning
    assert aside.read_bytes() == damaged
