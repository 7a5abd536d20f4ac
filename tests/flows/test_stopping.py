"""However a run ends, nothing is left running, and the same command goes on to the same bytes.

These runs are processes of their own with an embedded Prefect server of their own.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import SOCK_DGRAM

import fakes
import psutil
import pytest
from clocks import Clock
from patience import PATIENCE_SECONDS
from places import ROOT
from planted import Bomb
from stranger import in_the_open

from flows.server.embedded import FORKED_NAME

DRIVER = Path(__file__).parent / "fake_curate.py"
RECORDS = 32
DAY_SECONDS = 86_400
#: What names the tests' own server and logs in there.
CONFIGURED = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")

pytestmark = pytest.mark.faults


def until(true: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


@dataclass
class Place:
    """Where the runs of one test work, and what is found there."""

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def start(self, server: str | None = None, **settings: str) -> subprocess.Popen[str]:
        """A run under way, with a Prefect server of its own unless one is named."""
        chats = self.folder / "chats.jsonl"
        if not chats.exists():
            with chats.open("w") as file:
                for number in range(RECORDS):
                    messages = [
                        {"role": "user", "content": f"question {number} that {fakes.SLOW}"},
                        {"role": "assistant", "content": f"answer {number}"},
                    ]
                    file.write(json.dumps({"messages": messages}) + "\n")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return subprocess.Popen(
            [
                *(sys.executable, str(DRIVER), "--input", "chats.jsonl", "--output", "out"),
                *("--shard-tokens", "30", "--workers", "2"),
            ],
            cwd=self.folder,
            env={
                **environment,
                **({name: os.environ[name] for name in CONFIGURED} if server else {}),
                "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
                "ASSAY_HOME": str(self.folder / "home"),
                "FAKE_MODEL": str(self.folder / "model"),
                "FAKE_FINGERPRINT": "ab" * 16,
                **settings,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finished(self, server: str | None = None) -> tuple[int, str]:
        """The exit code and standard error of a run that is left alone."""
        run = self.start(server)
        _, err = run.communicate(timeout=PATIENCE_SECONDS)
        return run.returncode, err

    def segments(self) -> int:
        return len(list((self.folder / "home" / "scores").glob("*/*.parquet")))

    def calls(self) -> list[str]:
        return fakes.calls(self.folder / "model")

    def results(self) -> dict[str, bytes]:
        paths = [path for path in self.output.iterdir() if path.name not in ("manifest.json", "report.html")]
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path)
    # Told apart by their environment: whatever was started for this test, children and servers too.
    left = started_for(tmp_path)
    for process in left:
        process.kill()
    assert not left


def started_for(folder: Path) -> list[psutil.Process]:
    """Living processes that have this test's ASSAY_HOME or lie in it, once they had time to end."""

    def found() -> list[psutil.Process]:
        processes = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("ASSAY_HOME") == str(folder / "home")
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return processes

    until(lambda: not found(), 15)
    return found()


def tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


def is_server(process: psutil.Process) -> bool:
    return Path(f"/proc/{process.pid}/comm").read_text().strip() == FORKED_NAME


def listeners(process: subprocess.Popen[str]) -> set[tuple[int, str]]:
    """Process and address of every socket at which a run, or what it started, takes what anybody sends."""
    return {
        (one.pid, connection.laddr.ip)
        for one in tree(process)
        for connection in one.net_connections()
        if connection.status == psutil.CONN_LISTEN or (connection.type == SOCK_DGRAM and not connection.raddr)
    }


#: What moves a server that others start to all addresses, or starts one more.
ELSEWHERE = {
    "PREFECT_SERVER_API_HOST": "0.0.0.0",
    "PREFECT_RUNNER_SERVER_ENABLE": "true",
    "PREFECT_RUNNER_SERVER_HOST": "0.0.0.0",
    "UVICORN_HOST": "0.0.0.0",
    "DASK_SCHEDULER__HOST": "0.0.0.0",
    "DASK_HOST": "0.0.0.0",
    "DASK_INTERFACE": "eth0",
    "HOST": "0.0.0.0",
}


#: Signals, whether all processes of a run get them, as from a terminal, and the exit code.
STOPS = [
    (signal.SIGTERM, False, 143),
    (signal.SIGTERM, True, 143),
    (signal.SIGINT, False, 130),
    (signal.SIGINT, True, 130),
    (signal.SIGHUP, False, 129),
    (signal.SIGHUP, True, 129),
]


def send(run: subprocess.Popen[str], number: signal.Signals, to_all: bool) -> None:
    (os.killpg if to_all else os.kill)(run.pid, number)


def semaphores(process_id: int) -> set[int]:
    """The files, by their numbers, of the semaphores that the process shares with those it started."""
    lines = Path(f"/proc/{process_id}/maps").read_text().splitlines()
    return {int(line.split()[4]) for line in lines if "/dev/shm/sem." in line}


@pytest.mark.parametrize(("number", "to_all", "code"), STOPS)
def test_a_run_listens_on_loopback_alone_and_stops_at_a_signal(
    place: Place,
    number: signal.Signals,
    to_all: bool,
    code: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shown = tmp_path_factory.mktemp("shown") / "login"
    run = place.start(**ELSEWHERE, SHOW_LOGIN=str(shown))
    assert until(lambda: place.segments() >= 2)
    # The driver's scheduler, the Prefect server and each worker listen, and on loopback alone.
    heard = listeners(run)
    assert len({process for process, _ in heard}) >= 4
    assert {address for _, address in heard} == {"127.0.0.1"}
    processes = tree(run)
    assert len([process for process in processes if is_server(process)]) == 1
    login = shown.read_text()
    assert in_the_open(login, processes, place.folder) == set()
    for process in processes:
        assert login not in process.environ().values()
    shared = semaphores(run.pid)
    assert shared
    began = time.monotonic()
    send(run, number, to_all)
    _, err = run.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert run.returncode == code
    assert "the same command goes on from there" in err.splitlines()[-1]
    assert re.search(rf"^score: at least \d+ of {RECORDS} turns are stored$", err, re.MULTILINE)
    assert "Traceback" not in err
    assert not place.output.exists()
    assert not started_for(place.folder)
    assert not shared & {entry.inode() for entry in os.scandir("/dev/shm")}


@pytest.mark.parametrize(("number", "to_all", "code"), STOPS)
def test_a_run_that_is_stopped_while_its_workers_start_says_so_in_its_last_line(
    place: Place, number: signal.Signals, to_all: bool, code: int
) -> None:
    begun = place.folder / "begun"
    hangs = place.folder / "hangs.py"
    hangs.write_text(f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n")
    run = place.start(DASK_DISTRIBUTED__WORKER__PRELOAD=str(hangs))
    assert until(begun.exists)
    send(run, number, to_all)
    _, err = run.communicate(timeout=30)
    assert run.returncode == code
    assert "the same command goes on from there" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not started_for(place.folder)


@pytest.mark.parametrize("to_all", [False, True])
def test_the_second_ctrl_c_is_immediate(place: Place, to_all: bool) -> None:
    run = place.start()
    assert until(lambda: place.segments() >= 1)
    shared = semaphores(run.pid)
    assert shared
    send(run, signal.SIGINT, to_all)
    time.sleep(0.1)
    began = time.monotonic()
    send(run, signal.SIGINT, to_all)
    _, err = run.communicate(timeout=30)
    assert time.monotonic() - began < 1.5
    assert run.returncode == 130
    assert "the same command goes on from there" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not started_for(place.folder)
    assert not shared & {entry.inode() for entry in os.scandir("/dev/shm")}


def test_a_run_killed_while_scoring_leaves_nothing_and_pays_for_no_turn_of_a_segment_twice(
    place: Place, tmp_path: Path, prefect_api: str
) -> None:
    run = place.start()
    assert until(lambda: place.segments() >= 3)
    run.kill()
    run.communicate()
    assert not started_for(place.folder)
    assert not place.output.exists()
    code, err = place.finished()
    assert code == 0, err
    assert "an earlier run's plan" in err
    # What was under way when the run was killed may have been asked for, and is asked for again.
    assert len(set(place.calls())) == RECORDS
    assert len(place.calls()) - RECORDS <= 2 * 4
    undisturbed = Place(tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    assert undisturbed.finished(prefect_api)[0] == 0
    assert place.results() == undisturbed.results()
    assert not started_for(undisturbed.folder)


def test_a_run_that_is_ended_from_outside_while_it_scores_stops_and_says_so(
    place: Place, prefect_api: str
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    evil, ran = place.folder / "evil", place.folder / "ran"
    evil.write_bytes(base64.encodebytes(pickle.dumps(Bomb(ran))))
    run = place.start(prefect_api)
    assert until(lambda: place.segments() >= 1)
    with get_client(sync_client=True) as client:
        ours = FlowRunFilter(name=FlowRunFilterName(any_=["curate to out"]))
        (found,) = [one for one in client.read_flow_runs(flow_run_filter=ours) if one.state_name == "Running"]
        state = {"type": "COMPLETED", "data": {"storage_key": str(evil), "serializer": {"type": "pickle"}}}
        asked = {"state": state, "force": True}
        client.request("POST", "/flow_runs/{id}/set_state", path_params={"id": found.id}, json=asked)
    began = time.monotonic()
    _, err = run.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert run.returncode == 75, err
    last = "error: the run was set to Completed from outside; what is scored is stored"
    assert err.splitlines()[-1] == last
    assert "Traceback" not in err
    assert not ran.exists()
    assert not place.output.exists()
    assert place.finished(prefect_api)[0] == 0
    assert len(set(place.calls())) == RECORDS


def test_a_clock_that_is_a_day_off_and_jumps_by_two_days_changes_no_result(
    place: Place, tmp_path: Path, prefect_api: str
) -> None:
    clock = Clock.made(tmp_path / "clock")
    clock.set(DAY_SECONDS)
    run = place.start(**clock.environment)
    assert until(lambda: place.segments() >= 2)
    clock.set(-DAY_SECONDS)
    _, err = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, err
    assert "Traceback" not in err
    assert abs(clock.time() - time.time() + DAY_SECONDS) < 60, "the clock did jump"
    undisturbed = Place(tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    assert undisturbed.finished(prefect_api)[0] == 0
    assert place.results() == undisturbed.results()
    assert len(place.calls()) == RECORDS
    assert not started_for(undisturbed.folder)


def test_a_run_survives_the_death_of_its_prefect_server(place: Place) -> None:
    run = place.start()
    assert until(lambda: place.segments() >= 1)
    (server,) = [process for process in tree(run) if is_server(process)]
    server.kill()
    _, err = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, err
    assert "Traceback" not in err
    assert json.loads((place.output / "manifest.json").read_bytes())["rows"]["kept"] == RECORDS
