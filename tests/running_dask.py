"""A Dask scheduler and workers that the test starts, not the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from patience import PATIENCE_SECONDS
from places import ROOT


def until(true: Callable[[], object], what: str) -> None:
    """Wait until ``true()`` is true. Fails with ``what`` if that takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def address_in(found: Path) -> str:
    """The address in a scheduler's file, once the file is whole: Dask makes it first, and writes it then."""
    read: list[str] = []

    def is_whole() -> bool:
        with suppress(OSError, ValueError):
            read.append(json.loads(found.read_text())["address"])
        return bool(read)

    until(is_whole, "a scheduler")
    return read[0]


class RunningDask:
    """A scheduler, and the workers that a test starts. They end with the stack."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._found = folder / "scheduler.json"
        self._start("scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        self.address = address_in(self._found)

    def worker(
        self, name: str, code: Path = ROOT, environment: Mapping[str, str] | None = None, port: int = 0
    ) -> subprocess.Popen[bytes]:
        """Start a worker with the code in ``code``, or with this code. Port 0: any free port."""
        options = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--name", name]
        options += ["--worker-port", str(port)]
        return self._start("worker", *options, code=code, environment=environment)

    def _start(
        self, *command: str, code: Path = ROOT, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        where = ["--scheduler-file", str(self._found), "--host", "127.0.0.1"]
        there = os.pathsep.join([str(code), str(ROOT / "tests")])
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *command, *where],
            cwd=self._folder,
            env={**(os.environ if environment is None else environment), "PYTHONPATH": there},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        return process
