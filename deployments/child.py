"""``python -m deployments.child prefect …``: a Prefect command that ends when its parent does.

Standard input is a pipe that only the parent holds. When it closes, however the parent ended, the command
and what it started get SIGTERM, so that runs release their locks and report to the server; what has not ended
a few seconds later is killed. (Prefect's worker by itself would wait for its runs to finish.)
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from contextlib import suppress

import psutil

_GRACE_SECONDS = 6.0
_REPORT_SECONDS = 3.0


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    started = psutil.Process().children(recursive=True)
    _send(signal.SIGTERM, [process for process in started if process.ppid() == os.getpid()])
    psutil.wait_procs(started, timeout=_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_REPORT_SECONDS)
    _send(signal.SIGKILL, [*started, *psutil.Process().children(recursive=True)])
    os._exit(1)


def _send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _look_after_runs(command: list[str]) -> None:
    """If the command starts a worker, have runs that the worker takes and never begins start again."""
    if command[1:3] != ["worker", "start"]:
        return
    from deployments.never_begun import watch

    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", required=True)
    parser.add_argument("--work-queue", action="append", default=[])
    asked, _ = parser.parse_known_args(command[3:])
    watch(os.environ["PREFECT_API_URL"], asked.pool, asked.work_queue)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()
    from tasks.server_answers import drop_results

    drop_results()
    sys.argv = sys.argv[1:]
    _look_after_runs(sys.argv)
    from prefect.cli import app

    app()
