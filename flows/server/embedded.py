"""A Prefect server of our own, for a run that has none: on loopback, with a login, and gone with the run.

The server is a child process whose standard input is a pipe that only its parent holds. However the
parent ends, be it by ``kill -9``, the pipe closes and the child stops. (Prefect's own embedded server
is stopped by its parent's exit handlers and outlives a parent that has no time to run them.)

When the child serves, it answers with one line of JSON on its standard output. All else that it says
goes to ``prefect/server.log`` under ``ASSAY_HOME``. A server that dies under a living run is started again
at its old address, where Prefect's client looks for it.

All users of a machine can reach its loopback, so every caller of the API must log in. The login is random and
made for this server alone. The child gets it in its environment, or as a fork in its memory; other users can
read neither.

This module is both sides: ``EmbeddedServer`` for the parent, and what the child does. The child is a program
of its own, ``python -m flows.server.embedded``, or a fork of a parent that has imported of Prefect what a
server imports too: that halves what the server's start costs. Nothing of Prefect is imported on import.
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
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from assay.core.errors import ServerFault
from assay.storage.private import FILE, make_private, opener
from flows.server.new_history import empty_history
from flows.server.run_history import DATABASE, damage_of, set_aside

_NOTICE_AFTER_SECONDS = 8.0
_LOOK_SECONDS = 0.1
_STOP_SECONDS = 5.0
_LOG_LINES_SHOWN = 3
_MOST_RESTARTS = 3
_USER = "assay"
_PASSWORD_BYTES = 32

#: Threads that may run while a server is forked off: they wait in the system and hold no lock, which a fork
#: would copy and nobody would let go of.
_QUIET_THREADS = frozenset({"MainThread", "signals"})
#: New objects after which a server looks for garbage. A short run makes fewer.
_GARBAGE_THRESHOLD = 50_000
#: A fork that does not serve by then hangs, and a program of its own takes its place.
_FORK_SECONDS = 20.0
#: What a forked server is called in lists of processes. Its command line is that of its parent.
FORKED_NAME = "assay-prefect"
#: A line of a forked server's log, which goes to standard error. As Prefect's, with the date.
_LOG_FORMAT = "%(asctime)s | %(levelname)-7s | %(name)s - %(message)s"
_PR_SET_NAME = 15

#: The services of Prefect that schedule, expire or watch deployed work. A server that lives as long as
#: one run has none to look after, and each is one more thing to start.
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

#: What begins the paths that a run asks for.
_USED_BY_A_RUN = frozenset(
    {"/admin", "/artifacts", "/csrf-token", "/events", "/flow_runs", "/flows", "/logs", "/task_runs"}
)

#: From this size on a server clears the database of old events. Looking for them is a twentieth of a start.
_CLEARED_FROM_BYTES = 1 << 24


def _environment(folder: Path, login: str, *, for_deployments: bool) -> dict[str, str]:
    """The child's environment: the parent's without its Prefect settings, and the server's own.

    Only a server for deployments has Prefect's pages: nobody knows another's login, and could open them.
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
        # Done here, and only where there is something to migrate.
        "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_API_AUTH_STRING": login,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": str(for_deployments).lower(),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        **({} if for_deployments else _without(_IDLE_SERVICES)),
        # An empty list: to Prefect `false` means events alone.
        **({} if for_deployments or is_large else {"PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": ","}),
        # Prefect imports a library that checks its own types whenever it is called.
        "PY_KEY_VALUE_DISABLE_BEARTYPE": "true",
    }


def _without(services: Sequence[str]) -> dict[str, str]:
    return {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in services}


class EmbeddedServer:
    """The parent's side: starts the child, waits for it, and stops it."""

    def __init__(
        self, folder: Path, *, port: int = 0, for_deployments: bool = False, may_fork: bool = False
    ) -> None:
        """A server whose database and log lie in ``folder``; nothing happens until ``start``.

        Port 0 is any that is free. ``for_deployments`` runs what schedules and watches deployed work too.
        ``may_fork`` is for a process that has imported Prefect: the server is then a fork of it, where that
        is safe, and does not import Prefect again.
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
        """Where it serves, such as ``http://127.0.0.1:41234``, once ``wait`` has returned."""
        self.login = f"{_USER}:{secrets.token_urlsafe(_PASSWORD_BYTES)}"
        """What Prefect's client has to be given too, ``user:password``. It opens this server and no other."""

    @property
    def api_url(self) -> str:
        """What Prefect's client is to be given."""
        return f"{self.address}/api"

    @property
    def process_id(self) -> int:
        """The process id of the child."""
        assert self._child is not None
        return self._child.pid

    @property
    def log(self) -> Path:
        """What the server had to say."""
        return self._folder / "server.log"

    def start(self) -> None:
        """Start the child and return at once, so that the parent can do its own starting meanwhile."""
        make_private(self._folder)
        self._began = time.monotonic()
        self._is_fork = self._may_fork and _forks_safely()
        self._child = self._spawn(self._port, forked=self._is_fork)
        # A fork without exec would hold the pipe open too, and with it the server.
        os.register_at_fork(after_in_child=self._let_go)
        threading.Thread(target=self._watch, daemon=True, name="embedded-server").start()

    def _spawn(self, port: int, *, forked: bool) -> subprocess.Popen[str]:
        environment = _environment(self._folder, self.login, for_deployments=self._for_deployments)
        if forked:
            # The fork would write buffered text a second time.
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
                # Prefect would read a prefect.toml or .env that lies where the run was started.
                cwd=self._folder,
                # Ctrl-C goes to a terminal's whole process group; when the server stops is for us to say.
                start_new_session=True,
                # What Prefect and SQLite make is for this user alone.
                umask=0o077,
                text=True,
                # It never returns, so that no program is started: the fork itself is the server.
                preexec_fn=partial(_serve_as_fork, port, environment) if forked else None,
            )

    def _let_go(self) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()

    def _watch(self) -> None:
        """Pass on what the child answers, and start it again where it dies after it had served."""
        for _ in range(1 + _MOST_RESTARTS):
            child = self._child
            if child is None:
                return
            assert child.stdin is not None
            assert child.stdout is not None
            answer = child.stdout.readline()
            child.stdout.close()
            if not answer:
                # How it ended is known before anybody asks.
                child.wait()
            self._answers.put((child, answer))
            child.wait()
            with self._guard:
                if self._stopped or not answer or child is not self._child:
                    return
                child.stdin.close()
                # By now this process has threads and connections, which a fork would take with it.
                self._child = self._spawn(int(json.loads(answer)["port"]), forked=False)

    def _replaced_fork(self) -> bool:
        """Whether the child was a fork, and a program of its own is starting in its place by now.

        A fork has the locks that other threads held in its parent: libraries that take one may never return.
        """
        with self._guard:
            child = self._child
            if not self._is_fork or self._stopped or child is None:
                return False
            self._is_fork = False
            self._child = self._spawn(self._port, forked=False)
        child.kill()
        assert child.stdin is not None
        child.stdin.close()
        threading.Thread(target=self._watch, daemon=True, name="embedded-server").start()
        return True

    def wait(self, timeout_seconds: float, say: Callable[[str], None]) -> None:
        """Return when the server serves; ServerFault when it ended or took too long, and it is stopped."""
        is_announced = False
        while True:
            waited = time.monotonic() - self._began
            if waited > _FORK_SECONDS:
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
                if child.returncode < 0 and self._replaced_fork():
                    continue
                self.stop()
                self._check_disk()
                raise ServerFault(
                    f"the embedded Prefect server ended while starting{self._last_words()}. "
                    f"Its log is {self.log}. If it names the database, move {self._folder / DATABASE} away: "
                    "that is the history of runs, and no score is in it"
                )
            answered = json.loads(answer)
            self.address = f"http://127.0.0.1:{answered['port']}"
            if answered["set_aside"]:
                say(
                    "warning: the history of earlier runs was damaged, and a new one is begun. The old one "
                    f"is {answered['set_aside']}"
                )
            return

    def _check_disk(self) -> None:
        """Nothing, or ServerFault where the disk is full: the log, which would say so, lies on it too."""
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
        """Have the server write down what it still holds and end; kill it if that takes too long."""
        with self._guard:
            self._stopped = True
            child, self._child = self._child, None
        if child is None:
            return
        end(child, _STOP_SECONDS)


def end(child: subprocess.Popen[Any], seconds: float) -> None:
    """Close the pipe by which the child knows that it is wanted; kill it if it has not ended in time."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _forks_safely() -> bool:
    """Whether a fork of this process can go on as a server. Elsewhere than on Linux, libraries forbid it."""
    streams = sys.stdin, sys.stdout, sys.stderr
    return (
        sys.platform == "linux"
        # A process that was started with one of them closed has None, and the fork's logs need them.
        and None not in streams
        and {thread.name for thread in threading.enumerate()} <= _QUIET_THREADS
    )


def _serve_as_fork(port: int, environment: Mapping[str, str]) -> NoReturn:
    """The child's side in a fork: let go of what is the parent's, and serve.

    Descriptors 0, 1 and 2, the folder, the umask and the session are the child's own by now.
    """
    try:
        # With them goes the pipe by which the parent knows that the child has started.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)  # as in any Python; subprocess restored the default
        os.environ.clear()
        os.environ.update(environment)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, FORKED_NAME.encode(), 0, 0, 0)
        from prefect.context import refresh_global_settings_context
        from prefect.logging import configuration

        refresh_global_settings_context()
        # Prefect's own way to set up its log takes a tenth of a second.
        setattr(configuration, "setup_logging", lambda: None)  # noqa: B010 - mypy allows no other way
        logging.basicConfig(level=logging.WARNING, format=_LOG_FORMAT)
        # Settings that the parent has changed for a while are in its context.
        contextvars.Context().run(_serve, port)
    except BaseException:  # noqa: BLE001 - beyond this lie the parent's frames
        traceback.print_exc()
    os._exit(1)


def _serve(port: int) -> NoReturn:
    """The child's side: serve until standard input ends, and end the process. Port 0 is any that is free."""
    # What is made while starting stays. Looking through it for garbage takes a quarter of a start.
    gc.disable()
    # Bound before Prefect is imported, because Prefect's pages get the address when they are made.
    # The protocol is named because asyncio sends small answers at once (TCP_NODELAY) only where it is.
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
    # Reading it takes as long as it is large, and importing Prefect takes two seconds: both at once.
    looking = threading.Thread(target=lambda: damage.append(damage_of(database)), name="history")
    looking.start()

    import prefect.server.api.server as api
    import prefect.settings
    import uvicorn
    from filelock import FileLock
    from prefect.server.database import provide_database_interface

    # Two servers that meet an empty folder must not both create the database.
    starting = FileLock(Path(os.environ["PREFECT_HOME"]) / "starting.lock", mode=FILE)
    starting.acquire()
    moved = ""
    # Looked at again, because another server may have set it aside meanwhile.
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
                gc.freeze()
                gc.set_threshold(_GARBAGE_THRESHOLD)
                gc.enable()

    # FastAPI works out a router's routes once a request comes by. Those of a run never come by the last ones.
    routers = sorted(api.API_ROUTERS, key=lambda router: router.prefix not in _USED_BY_A_RUN)
    setattr(api, "API_ROUTERS", tuple(routers))  # noqa: B010 - mypy allows no other way
    # Prefect finds an app again by a hash of all settings, which takes a tenth of a second. There is one app.
    setattr(prefect.settings.Settings, "hash_key", lambda settings: "of the only app")  # noqa: B010
    config = uvicorn.Config(api.create_app(), log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
    running.append(Server(config))
    if not stopping.is_set():
        running[0].run(sockets=[listener])
    # Events are written down and the database is closed. What Python still does at its end takes a second.
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
