"""The embedded server serves on loopback, and never outlives whoever started it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from patience import PATIENCE_SECONDS
from places import ROOT
from running_process import running
from stranger import asked_by_nobody, in_the_open, needs_two_users, read_by_nobody
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from assay.core.errors import ServerFault
from flows.server import embedded as embedded_server
from flows.server.embedded import FORKED_NAME, EmbeddedServer, _forks_safely
from flows.server.run_history import damage_of

pytestmark = pytest.mark.slow

PREFECT = Subprotocol("prefect")

STARTED = """
import os, sys, time
from pathlib import Path
from flows.server.embedded import EmbeddedServer
if sys.argv[3] == "forked":
    import prefect.client.orchestration, prefect.flows
ours = open(sys.argv[1] + "/ours", "w")
server = EmbeddedServer(Path(sys.argv[1]), may_fork=sys.argv[3] == "forked")
server.start()
if sys.argv[2] == "serving":
    server.wait(120, lambda line: None)
print(server.process_id, server.address, server.login, flush=True)
time.sleep(600)
"""

STRUCK = """
import os, signal, sys, time
from pathlib import Path
import prefect.client.orchestration, prefect.flows
import psutil
from flows.server import embedded

def struck(port, environment):
    os.closerange(3, 256)
    while True:
        exec(sys.argv[2])

embedded._FORK_SHARE = 0.01
embedded._serve_as_fork = struck
server = embedded.EmbeddedServer(Path(sys.argv[1]), may_fork=True)
server.start()
fork = server.process_id
server.wait(120, print)
there = psutil.Process(server.process_id).cmdline()
print("flows.server.embedded" in there, server.process_id != fork, psutil.pid_exists(fork))
server.stop()
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
    with connect(f"{server.api_url.replace('http', 'ws')}/events/in", subprotocols=[PREFECT]) as events:
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
    assert until(lambda: server.process_id != before and answers(server), PATIENCE_SECONDS)
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


@contextmanager
def parent_of_a_server(
    folder: Path, when: str, how: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Yield a process that started a server, and what it says of it: process, address and login."""
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTED, str(folder), when, how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        try:
            yield parent, parent.stdout.readline().split(" ")
        finally:
            parent.kill()
            parent.wait()


@pytest.mark.parametrize("how", ["forked", "on its own"])
@pytest.mark.parametrize("when", ["starting", "serving"])
@pytest.mark.faults
def test_the_server_dies_with_a_parent_that_is_killed(folder: Path, when: str, how: str) -> None:
    with parent_of_a_server(folder, when, how) as (_, (process, *_rest)):
        assert is_alive(int(process))
    assert until(lambda: not is_alive(int(process)), 10)
    assert damage_of(folder / "prefect.db") is None


def test_a_fork_serves_like_a_program_of_its_own_and_has_nothing_of_its_parent(tmp_path: Path) -> None:
    with parent_of_a_server(tmp_path, "serving", "forked") as (parent, (process_id, address, login)):
        server = psutil.Process(int(process_id))
        # A command line of its own it has not: lists of processes name it.
        assert server.cmdline() == psutil.Process(parent.pid).cmdline()
        assert Path(f"/proc/{server.pid}/comm").read_text().strip() == FORKED_NAME
        assert os.getsid(server.pid) == server.pid
        assert server.cwd() == str(tmp_path)
        assert {file.path for file in server.open_files()} & {str(tmp_path / "ours")} == set()
        listening = [one.laddr for one in server.net_connections() if one.status == psutil.CONN_LISTEN]
        assert {address.ip for address in listening} == {"127.0.0.1"}
        url = f"{address}/api/flow_runs/filter"
        assert httpx.post(url, json={}, timeout=30).status_code == 401
        auth = httpx.BasicAuth(*login.strip().split(":"))
        assert httpx.post(url, json={}, auth=auth, timeout=30).status_code == 200
        assert in_the_open(login.strip(), [server, psutil.Process(parent.pid)], tmp_path) == set()
        assert login.strip() not in server.environ().values()
        made = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.rglob("prefect.db*")}
        assert set(made.values()) == {0}, made
        with closing(sqlite3.connect(tmp_path / "prefect.db")) as database:
            database.execute("DROP TABLE log")
        assert httpx.post(f"{address}/api/logs/filter", json={}, auth=auth, timeout=30).status_code == 500
        log = (tmp_path / "server.log").read_text()
        assert re.search(
            r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ \| ERROR +\| prefect\.\S+ - ", log, re.MULTILINE
        )
        server.terminate()
        assert until(lambda: not is_alive(server.pid), 10)


@pytest.mark.operated
def test_settings_of_the_user_are_not_those_of_a_runs_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    user.mkdir()
    (user / "profiles.toml").write_text('active = "own"\n[profiles.own]\nPREFECT_API_DEFAULT_LIMIT = "7"\n')
    (user / "prefect.toml").write_text("[server.api]\ndefault_limit = 8\n")
    monkeypatch.setenv("PREFECT_HOME", str(user))
    monkeypatch.setenv("PREFECT_SERVER_API_DEFAULT_LIMIT", "9")
    monkeypatch.chdir(user)
    folder = tmp_path / "prefect"
    folder.mkdir()
    for variable in ("set", "unset"):
        if variable == "unset":
            monkeypatch.delenv("PREFECT_SERVER_API_DEFAULT_LIMIT")
        with parent_of_a_server(folder, "serving", "forked") as (_, (_process, address, login)):
            auth = httpx.BasicAuth(*login.strip().split(":"))
            settings = httpx.get(f"{address}/api/admin/settings", auth=auth, timeout=30).json()
            assert settings["server"]["api"]["default_limit"] == 200


def test_a_process_with_threads_of_its_own_is_not_forked() -> None:
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        assert not _forks_safely()
    finally:
        waiting.set()
        thread.join()


REPORTED = """
import sys
from pathlib import Path
from uuid import UUID
from assay.config.settings import Settings
from assay.storage.home import Home
from flows.server.connection import connected, deliver_reports, server_of_the_run
with server_of_the_run(Home(Path(sys.argv[1]))) as embedded:
    from prefect import flow, get_run_logger, runtime, task
    from prefect.artifacts import create_markdown_artifact

    @task
    def double(number): return 2 * number

    @flow
    def reported():
        get_run_logger().info("under way")
        create_markdown_artifact("done", key="summary")
        return [double(number) for number in range(20)], runtime.flow_run.id

    with connected(embedded, Settings(home=Path(sys.argv[1])), print):
        _, run = reported()
        deliver_reports(UUID(str(run)), 30)
"""


def test_all_that_a_server_was_given_is_in_its_database_once_it_has_ended(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-c", REPORTED, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env={**kept, "PREFECT_HOME": str(tmp_path / "own")})
    database = tmp_path / "prefect" / "prefect.db"
    # Written down in the database itself: nothing waits beside it.
    assert sorted(path.name for path in database.parent.glob("prefect.db*")) == ["prefect.db"]
    assert damage_of(database) is None
    with closing(sqlite3.connect(database)) as opened:

        def asked(query: str) -> list[tuple[object, ...]]:
            return opened.execute(query).fetchall()

        assert asked("SELECT state_type FROM flow_run") == [("COMPLETED",)]
        assert asked("SELECT type FROM flow_run_state ORDER BY timestamp") == [
            ("PENDING",),
            ("RUNNING",),
            ("COMPLETED",),
        ]
        assert asked("SELECT state_type, count(*) FROM task_run GROUP BY 1") == [("COMPLETED", 20)]
        states = "SELECT type, count(DISTINCT task_run_id) FROM task_run_state GROUP BY 1 ORDER BY 1"
        assert asked(states) == [("COMPLETED", 20), ("PENDING", 20), ("RUNNING", 20)]
        events = "SELECT event, count(*) FROM events WHERE event LIKE 'prefect.task-run.%' GROUP BY 1"
        assert set(asked(events)) == {
            ("prefect.task-run.Completed", 20),
            ("prefect.task-run.Pending", 20),
            ("prefect.task-run.Running", 20),
        }
        assert asked("SELECT key FROM artifact") == [("summary",)]
        assert ("under way",) in asked("SELECT message FROM log")


def test_a_slow_start_is_reported_and_ends_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_server, "_NOTICE_AFTER_SECONDS", 0.1)
    said: list[str] = []
    server = EmbeddedServer(tmp_path)
    server.start()
    process_id = server.process_id
    with pytest.raises(ServerFault, match=r"did not start within 0\.5 s.*ASSAY_SERVER_START_SECONDS"):
        server.wait(0.5, said.append)
    assert said == ["Waiting for the embedded Prefect server to start (up to 0.5 s) …"]
    assert until(lambda: not is_alive(process_id), 10)


@pytest.mark.faults
def test_a_full_disk_is_named_though_the_servers_log_is_on_it(small_disk: Path) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        filler.write(bytes(1 << 20))
    server = EmbeddedServer(small_disk / "prefect")
    server.start()
    with pytest.raises(ServerFault, match=r"No space left on device, so .* Make room") as refused:
        server.wait(120, print)
    assert str(small_disk) in str(refused.value)
    assert server.log.read_bytes() == b"", "the disk was full before anything could be said"


@pytest.mark.faults
def test_a_server_that_cannot_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").mkdir()
    server = EmbeddedServer(tmp_path)
    server.start()
    said = r"ended while starting .*unable to open database.*server\.log.*move .*prefect\.db away"
    with pytest.raises(ServerFault, match=said):
        server.wait(120, print)


@pytest.mark.faults
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
    assert f"begins. The old one is {aside} (file is not a database)" in warning
    assert aside.read_bytes() == damaged


def test_old_events_are_cleared_from_a_large_database_alone(tmp_path: Path) -> None:
    vacuum = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"
    assert vacuum in embedded_server._environment(tmp_path, "a:b", for_deployments=False)
    assert vacuum not in embedded_server._environment(tmp_path, "a:b", for_deployments=True)
    with (tmp_path / "prefect.db").open("wb") as file:
        file.truncate(1 << 24)
    assert vacuum not in embedded_server._environment(tmp_path, "a:b", for_deployments=False)


NOT_SERVING = """
import sys, uvicorn
from flows.server import embedded
import prefect.server.api.server as api
uvicorn.Server.run = lambda *_, **__: print(api.background_worker.__module__, file=sys.stderr)
embedded._serve(0)
"""


@pytest.mark.parametrize(
    ("for_deployments", "whose"), [(False, "flows.server.embedded"), (True, "prefect.server.api")]
)
def test_only_a_server_with_work_in_the_background_looks_for_it(
    tmp_path: Path, for_deployments: bool, whose: str
) -> None:
    """To look takes more than a hundredth of a core for as long as a run lasts."""
    environment = embedded_server._environment(tmp_path, "a:b", for_deployments=for_deployments)
    with running(
        [sys.executable, "-c", NOT_SERVING], env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        assert server.stderr is not None
        assert whose in server.stderr.read()


@pytest.mark.faults
@pytest.mark.parametrize("strike", ["time.sleep(600)", "os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(1)"])
def test_a_program_of_its_own_takes_the_place_of_a_fork_that_hangs_or_crashes(
    tmp_path: Path, strike: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STRUCK, str(tmp_path), strike],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.stdout.splitlines()[-1:] == ["True True False"], done.stderr


def test_a_process_in_which_polars_has_computed_something_is_not_forked() -> None:
    code = (
        "import polars as pl\n"
        "from flows.server.embedded import _forks_safely\n"
        "print(_forks_safely())\n"
        "pl.DataFrame({'a': range(1000)}).lazy().group_by('a').len().collect()\n"
        "print(_forks_safely())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "False"]
