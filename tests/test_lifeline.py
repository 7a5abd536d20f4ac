"""A test run that ends, however it ends, leaves no process and no folder behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lifeline
import psutil
import pytest

#: Starts a child that nobody waits for and another in a session of its own, as tests' servers are.
STARTED = """
import subprocess, sys, time
import lifeline
folder = lifeline.begin()
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
first = subprocess.Popen(sleep)
second = subprocess.Popen(sleep, start_new_session=True)
print(folder, first.pid, second.pid, flush=True)
"""
FINISHED = f"""{STARTED}
lifeline._LEAVE_SECONDS = 0.0
print(*lifeline.finish(folder), sep="\\n")
"""


def started(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(lifeline.__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )


def are_gone(process_ids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(psutil.pid_exists, process_ids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_killed_test_run_had_started_ends(ending: signal.Signals) -> None:
    run = started(f"{STARTED}time.sleep(600)")
    assert run.stdout is not None
    with run.stdout:
        folder, *process_ids = run.stdout.readline().split()
    run.send_signal(ending)
    assert run.wait(10) == -ending
    assert are_gone([int(one) for one in process_ids], 30)
    deadline = time.monotonic() + 10
    while Path(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_test_left_behind_is_ended_and_named() -> None:
    run = started(FINISHED)
    out, _ = run.communicate(timeout=60)
    said, *left = out.splitlines()
    folder, *process_ids = said.split()
    assert run.returncode == 0
    assert are_gone([int(one) for one in process_ids], 5)
    assert {line.partition(":")[0] for line in left} == set(process_ids)
    assert all("time.sleep(600)" in line for line in left)
    assert not Path(folder).exists()
