"""A Prefect server for a run that has none: on loopback, with a login; it ends with the run.

The server is a child process. Its standard input is a pipe that only the parent holds. When the parent ends,
even by ``kill -9``, the pipe closes and the child stops. (Prefect's own embedded server is stopped by its
parent's exit handlers. It survives a parent that has no time to run them.)

Once the child serves, it writes one line of JSON to its standard output. All its other output goes to
``prefect/server.log`` under ``ASSAY_HOME``. If the server dies while its run lives, it is started again at
its old address, where Prefect's client looks for it.

All users of a machine can reach its loopback, so every caller of the API must log in. The login is random and
made for this server alone. The child gets it in its environment, or in its memory if it is a fork. Other
users can read neither.

This module holds both sides: ``EmbeddedServer`` for the parent, and the code of the child. The child is a
program, ``python -m flows.server.embedded``, or a fork of the parent. A fork costs half as much to start: the
parent has already imported what the server needs of Prefect. This module itself imports nothing of Prefect.
"""

from __future__ import annotations

import contextvars
import ctypes
import gc
import json
import logging
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from assay.core.errors import ServerFault
from assay.storage.private import FILE, make_private, opener
from flows.server.garbage import collect_aside
from flows.server.new_history import empty_history
from flows.server.run_history import DATABASE, damage_of, set_aside

_NOTICE_AFTER_SECONDS = 8.0
_LOOK_SECONDS = 0.1
_STOP_SECONDS = 5.0
_LOG_LINES_SHOWN = 3
_MOST_RESTARTS = 3
_USER = "assay"
_PASSWORD_BYTES = 32

#: Threads that may run when the server is forked. They wait in the system and hold no lock. A fork would copy
#: a held lock, and nobody would release the copy.
_QUIET_THREADS = frozenset({"MainThread", "signals"})
#: The names of threads that libraries start on import and that wait in the same way: jemalloc's, and polars'
#: cleaner. Polars starts more threads once it computes something; then nothing is forked.
_QUIET_LIBRARIES = frozenset({"jemalloc_bg_thd", "polars-ooc-clea"})
#: A fork that does not serve within this share of the time hangs; a program of its own then takes its place.
_FORK_SHARE = 0.5
#: The name of a forked server in lists of processes. Its command line is that of its parent.
FORKED_NAME = "assay-prefect"
#: A line of a forked server's log, on standard error: Prefect's format, plus the date.
_LOG_FORMAT = "%(asctime)s | %(levelname)-7s | %(name)s - %(message)s"
_PR_SET_NAME = 15

#: The services of Prefect that schedule, expire or watch deployed work. A server for one run has no such
#: work, and each service takes time to start.
_IDLE_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)

#: The beginnings of the paths that a run requests.
_USED_BY_A_RUN = frozenset(
    {"/admin", "/artifacts", "/csrf-token", "/events", "/flow_runs", "/flows", "/logs", "/task_runs"}
)

#: A server removes old events from a database of at least this size. The search takes a twentieth of a start.
_CLEARED_FROM_BYTES = 1 << 24
#: What a server removes from its database: an empty list. Prefect takes `false` as a list with events in it.
_CLEARED, _OF_NOTHING = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED", ","


def _environment(folder: Path, login: str, *, for_deployments: bool) -> dict[str, str]:
    """The child's environment: the parent's without its Prefect settings, plus the server's settings.

    Only a server for deployments shows Prefect's pages. Nobody knows the login of another, so nobody could
    open its pages.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    source = str(Path(__file__).resolve().parents[2])
    database = folder / DATABASE
    is_large = database.is_file() and database.stat().st_size >= _CLEARED_FROM_BYTES
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, [source, kept.get("PYTHONPATH")])),
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        # ``_serve`` migrates the database, and only where that is needed.
        "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_API_AUTH_STRING": login,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": str(for_deployments).lower(),
        # Prefect writes its pages anew before it shows them, by default among its installed files. This user
        # may have no right to write there, and other users could not read what it writes.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "pages"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        **({} if for_deployments else _without(_IDLE_SERVICES)),
        **({} if for_deployments or is_large else {_CLEARED: _OF_NOTHING}),
        # Turn off the type checks that a library of Prefect runs at each call.
        "PY_KEY_VALUE_DISABLE_BEARTYPE": "true",
    }


def _without(services: Sequence[str]) -> dict[str, str]:
    return {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in services}


class EmbeddedServer:
    """The parent's side: starts the child, waits for it, and stops it."""

    def __init__(
        self, folder: Path, *, port: int = 0, for_deployments: bool = False, may_fork: bool = False
    ) -> None:
        """A server with its database and log in ``folder``. It starts with ``start``.

        Port 0 takes any free port. ``for_deployments`` also runs the services that schedule and watch
        deployed work. ``may_fork`` is for a process that has imported Prefect: where that is safe, the server
        is a fork of it and does not import Prefect again.
        """
        self._folder = folder
        self._may_fork = may_fork
        self._port = port
        self._for_deployments = for_deployments
        self._child: subprocess.Popen[str] | None = None
        self._is_fork = False
        self._guard = threading.Lock()
        self._stopped = False
        self._answers: queue.Queue[tuple[subprocess.Popen[str], str]] = queue.Queue()
        self._began = 0.0
        self.address = ""
        """The server's address, such as ``http://127.0.0.1:41234``; known once ``wait`` has returned."""
        self.login = f"{_USER}:{secrets.token_urlsafe(_PASSWORD_BYTES)}"
        """``user:password``, which Prefect's client needs. It opens this server and no other."""

    @property
    def api_url(self) -> str:
        """The address of the API, which Prefect's client needs."""
        return f"{self.address}/api"

    @property
    def process_id(self) -> int:
        """The process id of the child."""
        assert self._child is not None
        return self._child.pid

    @property
    def log(self) -> Path:
        """The file with the server's output."""
        return self._folder / "server.log"

    def start(self) -> None:
        """Start the child and return at once, so that the parent can go on starting meanwhile."""
        make_private(self._folder)
        self._began = time.monotonic()
        self._is_fork = self._may_fork and _forks_safely()
        self._child = self._spawn(self._port, forked=self._is_fork)
        # Another fork without exec would hold the pipe open, and the server would not stop.
        os.register_at_fork(after_in_child=self._let_go)
        threading.Thread(target=self._watch, daemon=True, name="embedded-server").start()

    def _spawn(self, port: int, *, forked: bool) -> subprocess.Popen[str]:
        environment = _environment(self._folder, self.login, for_deployments=self._for_deployments)
        if forked:
            # Otherwise the fork would write buffered text again.
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        with open(self.log, "ab", opener=opener) as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.server.embedded", str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                # In the folder where the run was started, Prefect would read a prefect.toml or .env.
                cwd=self._folder,
                # Ctrl-C goes to a terminal's whole process group, but the run decides when the server stops.
                start_new_session=True,
                # Only this user may read the files that Prefect and SQLite make.
                umask=0o077,
                text=True,
                # This function never returns, so no program is started: the fork itself is the server.
                preexec_fn=partial(_serve_as_fork, port, environment) if forked else None,
            )

    def _let_go(self) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()

    def _watch(self) -> None:
        """Pass on the child's answer, and start the child again where it dies after it had served."""
        for _ in range(1 + _MOST_RESTARTS):
            child = self._child
            if child is None:
                return
            assert child.stdin is not None
            assert child.stdout is not None
            answer = child.stdout.readline()
            child.stdout.close()
            if not answer:
                # Wait first, so that ``wait`` finds the return code.
                child.wait()
            self._answers.put((child, answer))
            child.wait()
            with self._guard:
                if self._stopped or not answer or child is not self._child:
                    return
                child.stdin.close()
                # Not a fork: by now this process has threads and connections, which a fork would copy.
                self._child = self._spawn(int(json.loads(answer)["port"]), forked=False)

    def _replaced_fork(self) -> bool:
        """If the child is a fork, replace it by a program of its own. Whether that was done.

        A fork copies the locks that other threads of its parent hold. A library that waits for one hangs.
        """
        with self._guard:
            child = self._child
            if not self._is_fork or self._stopped or child is None:
                return False
            self._is_fork = False
            # The port and the database are free once it has ended.
            child.kill()
            child.wait()
            assert child.stdin is not None
            child.stdin.close()
            self._child = self._spawn(self._port, forked=False)
        threading.Thread(target=self._watch, daemon=True, name="embedded-server").start()
        return True

    def wait(self, timeout_seconds: float, say: Callable[[str], None]) -> None:
        """Return once the server serves. Stop it and raise ServerFault where it ended or took too long."""
        is_announced = False
        while True:
            waited = time.monotonic() - self._began
            if waited > timeout_seconds * _FORK_SHARE:
                self._replaced_fork()
            if waited > timeout_seconds:
                self.stop()
                self._check_disk()
                raise ServerFault(
                    f"the embedded Prefect server did not start within {timeout_seconds:g} s"
                    f"{self._last_words()}. Give it longer with ASSAY_SERVER_START_SECONDS, or run "
                    "`prefect server start` yourself and set PREFECT_API_URL"
                )
            if waited > _NOTICE_AFTER_SECONDS and not is_announced:
                is_announced = True
                say(f"Waiting for the embedded Prefect server to start (up to {timeout_seconds:g} s) …")
            try:
                child, answer = self._answers.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if child is not self._child:
                continue
            if not answer:
                if self._replaced_fork():
                    continue
                self.stop()
                self._check_disk()
                raise ServerFault(
                    f"the embedded Prefect server ended while starting{self._last_words()}. "
                    f"Its log is {self.log}. If the log names the database, move {self._folder / DATABASE} "
                    "away: it holds the history of runs, and no scores"
                )
            answered = json.loads(answer)
            self.address = f"http://127.0.0.1:{answered['port']}"
            if answered["set_aside"]:
                say(
                    "warning: the history of earlier runs is damaged, so a new one begins. The old one is "
                    f"{answered['set_aside']}"
                )
            return

    def _check_disk(self) -> None:
        """Raise ServerFault where the disk is full. The log cannot show that: it is on the same disk."""
        from assay.storage.disk import why_full

        if why := why_full(self._folder):
            raise ServerFault(
                f"{self._folder}: {why}, so the embedded Prefect server cannot start. Make room, or set "
                "ASSAY_HOME to a folder on another disk"
            )

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        found = [line.strip() for line in lines if line.strip()][-_LOG_LINES_SHOWN:]
        return f" ({'; '.join(found)})" if found else ""

    def stop(self) -> None:
        """Have the server store what it still holds and end. Kill it if that takes too long."""
        with self._guard:
            self._stopped = True
            child, self._child = self._child, None
        if child is None:
            return
        end(child, _STOP_SECONDS)


def end(child: subprocess.Popen[Any], seconds: float) -> None:
    """Close the pipe, which ends the child. Kill the child if it has not ended in time."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _forks_safely() -> bool:
    """Whether a fork of this process can become a server. Libraries forbid it on systems other than Linux."""
    streams = sys.stdin, sys.stdout, sys.stderr
    return (
        sys.platform == "linux"
        # None where the process was started with that stream closed. The fork's logs need all three.
        and None not in streams
        and {thread.name for thread in threading.enumerate()} <= _QUIET_THREADS
        and _other_threads() == threading.active_count()
    )


def _other_threads() -> int:
    """How many threads this process has, with those of libraries, but without those in _QUIET_LIBRARIES."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sum(name not in _QUIET_LIBRARIES for name in names)


def _serve_as_fork(port: int, environment: Mapping[str, str]) -> NoReturn:
    """The child's side in a fork: release what belongs to the parent, and serve.

    Descriptors 0, 1 and 2, the folder, the umask and the session already are the child's own.
    """
    try:
        # This also closes the pipe that shows the parent that the child has started.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)  # as in any Python; subprocess restored the default
        os.environ.clear()
        os.environ.update(environment)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, FORKED_NAME.encode(), 0, 0, 0)
        from prefect.context import refresh_global_settings_context
        from prefect.logging import configuration

        refresh_global_settings_context()
        # Skip Prefect's set-up of its log, which takes a tenth of a second.
        setattr(configuration, "setup_logging", lambda: None)  # noqa: B010 - mypy allows no other way
        logging.basicConfig(level=logging.WARNING, format=_LOG_FORMAT)
        # A new context: the parent's holds settings that the parent changed for a while.
        contextvars.Context().run(_serve, port)
    except BaseException:  # noqa: BLE001 - the frames above belong to the parent
        traceback.print_exc()
    os._exit(1)


def _serve(port: int) -> NoReturn:
    """The child's side: serve until standard input ends, then end the process. Port 0 takes any free port."""
    # What the start makes stays in use. To search it for garbage would take a quarter of the start.
    gc.disable()
    # Bind before Prefect is imported: Prefect's pages get the address when they are made.
    # Name the protocol: only then does asyncio send small answers at once (TCP_NODELAY).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    port = listener.getsockname()[1]
    os.environ["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{port}/api"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    stopping = threading.Event()
    running: list[Any] = []

    def await_parents_end() -> None:
        while os.read(0, 1024):
            pass
        stopping.set()
        if not running:
            os._exit(0)
        running[0].should_exit = True
        time.sleep(_STOP_SECONDS)
        os._exit(0)

    threading.Thread(target=await_parents_end, daemon=True, name="parent").start()

    database = Path(os.environ["PREFECT_HOME"]) / DATABASE
    damage: list[str | None] = []
    # A large database takes long to read, and Prefect takes two seconds to import: do both at once.
    looking = threading.Thread(target=lambda: damage.append(damage_of(database)), name="history")
    looking.start()

    import prefect.server.api.server as api
    import prefect.settings
    import uvicorn
    from filelock import FileLock
    from prefect.server.database import provide_database_interface

    from flows.server.transactions import lock_at_once

    lock_at_once()
    # Two servers that find an empty folder must not both create the database.
    starting = FileLock(Path(os.environ["PREFECT_HOME"]) / "starting.lock", mode=FILE)
    starting.acquire()
    moved = ""
    # Look again, because another server may have set the database aside meanwhile.
    looking.join()
    if any(damage) and (what := damage_of(database)) is not None:
        moved = f"{set_aside(database)} ({what})"
    migrated = empty_history()
    if migrated is not None:
        migrated.begin(database)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            if migrated is None or not migrated.is_in(database):
                await provide_database_interface().create_db()
            await super().startup(sockets=sockets)
            starting.release()
            if self.started:
                answers.write(json.dumps({"port": port, "set_aside": moved}) + "\n")
                answers.flush()
                collect_aside()

    # FastAPI builds the routes of a router when a request first passes it. With the routers that a run uses
    # in front, a run's requests never pass the others.
    routers = sorted(api.API_ROUTERS, key=lambda router: router.prefix not in _USED_BY_A_RUN)
    setattr(api, "API_ROUTERS", tuple(routers))  # noqa: B010 - mypy allows no other way
    # Prefect keeps its apps by a hash of all settings, which takes a tenth of a second. Here is only one app.
    setattr(prefect.settings.Settings, "hash_key", lambda settings: "of the only app")  # noqa: B010
    if os.environ.get(_CLEARED) == _OF_NOTHING:
        # Then no service is on that does its work in Prefect's background worker. The worker looks for work
        # many times a second, which takes more than a hundredth of a core for as long as the run lasts.
        setattr(api, "background_worker", lambda *_, **__: nullcontext())  # noqa: B010
    config = uvicorn.Config(api.create_app(), log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
    running.append(Server(config))
    if not stopping.is_set():
        running[0].run(sockets=[listener])
    # Events are stored and the database is closed. Skip what Python does at its end, which takes a second.
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
