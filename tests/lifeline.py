"""One folder, one Prefect server and one S3 server for all processes of a test run, and an end for them all.

A test run is pytest and, with ``pytest -n``, its workers. All that they start carries the run's folder in
its environment, under ``MARK``. A watcher (``python lifeline.py watch PARENT FOLDER``) kills what carries it
when pytest is gone, be it by ``kill -9``. While pytest lives the watcher does nothing, so that tests still
show whether Assay itself cleans up.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock
from places import ROOT

#: Not ``ASSAY_…`` and not ``PREFECT_…``: tests take those out of the environment of what they start.
MARK = "TESTS_OF_ASSAY"
_LOOK_SECONDS = 0.2
_LEAVE_SECONDS = 10.0
_watchers: list[subprocess.Popen[bytes]] = []
_servers: list[subprocess.Popen[bytes]] = []


def begin() -> Path:
    """The folder of a new test run, of which this process is the head; its watcher is started."""
    folder = Path(tempfile.mkdtemp(prefix="assay-tests-"))
    watch = [sys.executable, __file__, "watch", str(os.getpid()), str(folder)]
    _watchers.append(subprocess.Popen(watch, start_new_session=True, stdin=subprocess.DEVNULL))
    os.environ[MARK] = str(folder)
    return folder


def finish(folder: Path) -> list[str]:
    """Stop the shared servers and the watcher; the command lines of what tests left behind, killed by now."""
    for file in folder.glob("*/process_id"):
        _kill(int(file.read_text()))
    deadline = time.monotonic() + _LEAVE_SECONDS
    while _started_for(folder) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    left = [_command(process) for process in _started_for(folder)]
    _end(folder)
    (watcher,) = _watchers
    watcher.kill()
    watcher.wait()
    return left


def shared(service: str) -> str:
    """The address of that service (a key of ``SERVICES``), one for all processes of this test run.

    A Prefect server's is followed by a space and its login.

    Whoever asks first starts it, as a process that outlives the asker and ends with the test run.
    """
    folder = shared_folder(service)
    folder.mkdir(exist_ok=True)
    address = folder / "address"
    with FileLock(folder / "lock"):
        if not address.exists():
            with (folder / "log").open("ab") as log:
                started = subprocess.Popen(
                    [sys.executable, __file__, service, str(folder)],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
            _servers.append(started)
            (folder / "process_id").write_text(str(started.pid))
            assert started.stdout is not None
            with started.stdout:
                said = started.stdout.readline().decode().strip()
            assert said, f"the {service} server of the tests did not start: {(folder / 'log').read_text()}"
            address.write_text(said)
    return address.read_text()


def shared_folder(service: str) -> Path:
    """Where that service keeps its files."""
    return Path(os.environ[MARK]) / service


def _watch(parent: int, folder: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    _end(folder)


def _end(folder: Path) -> None:
    """Kill what was started for the test run and what it starts meanwhile; remove the run's folder."""
    while left := _started_for(folder):
        for process in left:
            _kill(process.pid)
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def _started_for(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE
            ours = ours and not _is_tracker_of_this_process(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if ours:
            found.append(process)
    return found


def _is_tracker_of_this_process(process: psutil.Process) -> bool:
    """Whether it is what multiprocessing keeps beside this process, which spawns others; it ends with it."""
    return process.ppid() == os.getpid() and "multiprocessing.resource_tracker" in " ".join(process.cmdline())


def _command(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return f"{process.pid}"


def _kill(process_id: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)


def _prefect(folder: Path) -> str:
    from flows.server.embedded import EmbeddedServer

    server = EmbeddedServer(folder / "prefect")
    server.start()
    server.wait(120, lambda line: print(line, file=sys.stderr))
    return f"{server.api_url} {server.login}"


def _s3(folder: Path) -> str:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


SERVICES = {"prefect": _prefect, "s3": _s3}

if __name__ == "__main__":
    if sys.argv[1] == "watch":
        _watch(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        # Only the address goes to the asker; what the server prints goes to the log.
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        print(SERVICES[sys.argv[1]](Path(sys.argv[2])), file=answers, flush=True)
        threading.Event().wait()
