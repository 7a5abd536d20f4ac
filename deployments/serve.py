"""Prefect's pages with Assay's deployments and a worker, on this machine alone, until Ctrl-C.

    python -m deployments.serve [--port N]

``data`` stands for the samples and ``results`` for ``runs/``, unless ASSAY_DATA_ROOTS and
ASSAY_OUTPUT_ROOTS say otherwise. Everything listens on loopback and ends with this process. Who opens the
pages or calls the API has to log in, by what a file of this user says as long as the server is up.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from assay.config.settings import Settings
from assay.core.errors import AssayError, ServerFault
from assay.storage.home import Home
from assay.storage.private import make_private
from assay.workers.gpus import visible_devices
from deployments.register import (
    POOL,
    ROOT,
    deploy,
    end_lost_runs,
    for_a_worker,
    prepare_pool,
    watch_for_crashes,
)
from flows.command.signals import ending_code, stopping_on_signals
from flows.server.connection import prefects_settings, speaking_to
from flows.server.embedded import EmbeddedServer, end

_SUMMARY = "Prefect's pages with Assay's deployments and a worker, on this machine alone, until Ctrl-C."

_STOP_SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when it is stopped by Ctrl-C, which is how it ends."""
    parser = argparse.ArgumentParser(prog="python -m deployments.serve", description=_SUMMARY)
    parser.add_argument("--port", type=int, default=4200, help="Where Prefect's pages are. Default: 4200.")
    port = parser.parse_args(arguments).port
    with stopping_on_signals(goes_on=False):
        try:
            os.environ.setdefault("ASSAY_DATA_ROOTS", f"data={ROOT / 'samples'}")
            os.environ.setdefault("ASSAY_OUTPUT_ROOTS", f"results={ROOT / 'runs'}")
            settings = Settings.read()
            prefects_settings()
            with served(settings.opened_home(), settings, port) as worker:
                worker.wait()
            raise ServerFault("the worker ended; its last words are above")
        except AssayError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return error.exit_code
        except KeyboardInterrupt:
            say("Stopped. What runs had finished is kept; a retry goes on from there.")
            return 0
        except SystemExit as leaving:
            return ending_code(leaving) or 1


@contextmanager
def served(home: Home, settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Yield the worker's process, once the server has the deployments; on leaving, all are stopped."""
    for folder in settings.output_roots.values():
        make_private(folder)
    server = EmbeddedServer(home.prefect, port=port, for_deployments=True)
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        server.wait(settings.server_start_seconds, say)
        environment = {
            **os.environ,
            "PREFECT_API_URL": server.api_url,
            "PREFECT_API_AUTH_STRING": server.login,
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        stack.enter_context(speaking_to(server))
        prepare_pool(server.api_url)
        deploy(server.api_url, environment, settings)
        watch_for_crashes(server.api_url)
        for name in end_lost_runs(server.api_url):
            say(f"the run {name} was under way when this ended the last time; retry it to go on")
        login = stack.enter_context(told_to_this_user(server.login, home.prefect / f"login-{port}"))
        worker = start_worker(environment, queues=queues_here())
        stack.callback(stop, worker)
        say(
            f"Prefect's pages: {server.address}/deployments (curate, verify or evaluate, Run, Custom run). "
            f"They ask for a password: the line in {login}. From a command line: "
            f"PREFECT_API_URL={server.api_url} PREFECT_API_AUTH_STRING=$(cat {shlex.quote(str(login))}) "
            "assay curate … --deployment curate. Ctrl-C ends it."
        )
        yield worker


@contextmanager
def told_to_this_user(login: str, file: Path) -> Iterator[Path]:
    """Yield the file, which says the login and which nobody else can read; on leaving, it is gone.

    It is not printed: what a terminal shows ends up in logs, and in the sight of others.
    """
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(f"{login}\n")
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def queues_here() -> list[str]:
    """The queues that a worker of this machine can serve: that of GPUs only where it has some."""
    if visible_devices():
        return ["cpu", "gpu"]
    say("this machine shows no GPU: runs of curate-gpu, verify-gpu and evaluate-gpu wait for another worker")
    return ["cpu"]


def start_worker(
    environment: dict[str, str],
    output: IO[bytes] | None = None,
    *,
    pool: str = POOL,
    queues: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """A worker of the pool, which ends when this process does; it speaks to ``output``.

    It serves these queues, or all that the pool has.
    """
    served = [word for queue in queues for word in ("--work-queue", queue)]
    return subprocess.Popen(
        [sys.executable, "-m", "deployments.child", "prefect", "worker", "start", "--pool", pool, *served],
        cwd=ROOT,
        env=for_a_worker(environment),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        # Ctrl-C goes to a terminal's whole process group; when the worker stops is for us to say.
        start_new_session=True,
    )


def stop(worker: subprocess.Popen[bytes]) -> None:
    """Have the worker end the runs it has begun, and itself; kill it if that takes too long."""
    end(worker, _STOP_SECONDS)


def say(line: str) -> None:
    """Print a line for whoever started this."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
