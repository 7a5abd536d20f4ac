"""A clock that jumps while a run works, by a day or a year, ahead or back, holds nothing up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clocks import Clock
from cryptography import x509
from distributed import Security
from patience import PATIENCE_SECONDS
from places import ROOT

from assay.workers import steady_clock
from assay.workers.steady_clock import temporary_certificates

# Tasks go to and fro while the clock jumps ahead and back, again and again: it is a message under way that a
# jump can hold up. Then it stands where it jumped to, and a new worker shakes hands.
TASKS = """
import os, signal, struct, sys, threading, time

from assay.workers.cluster import ClusterOptions, connected

def jump(seconds):
    with open(os.environ["CLOCK_OFFSET"], "r+b") as file:
        file.write(struct.pack("q", seconds))

def jump_to_and_fro(seconds, ended):
    while not ended.wait(0.05):
        jump(seconds)
        time.sleep(0.05)
        jump(0)
    jump(seconds)

def work(client):
    assert client.gather(client.map(lambda n: n + 1, range(40), pure=False)) == list(range(1, 41))

def main():
    began = time.time()
    with connected(ClusterOptions(workers=1)) as client:
        work(client)
        for seconds in map(int, sys.argv[1:]):
            ended = threading.Event()
            jumping = threading.Thread(target=jump_to_and_fro, args=(seconds, ended))
            jumping.start()
            until = time.monotonic() + 2
            while time.monotonic() < until:
                work(client)
            ended.set()
            jumping.join()
            work(client)
            assert abs(time.time() - began - seconds) < 3600, "the clock did jump"
            (worker,) = client.run(os.getpid).values()
            os.kill(worker, signal.SIGKILL)
            work(client)
            assert worker not in client.run(os.getpid).values()
            print(seconds, flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.faults
@pytest.mark.slow
def test_tasks_go_on_and_workers_come_back_whatever_the_clock_does(tmp_path: Path) -> None:
    clock = Clock.made(tmp_path / "clock")
    (tmp_path / "tasks.py").write_text(TASKS)
    jumps = ["86400", "-86400", "31622400", "-31622400"]
    ran = subprocess.run(
        [sys.executable, tmp_path / "tasks.py", *jumps],
        env={**os.environ, **clock.environment, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ran.stdout.split() == jumps, ran.stderr
    assert ran.returncode == 0, ran.stderr


def tls_of(security: Security, name: str) -> str:
    """What Dask keeps under ``tls_NAME``, an attribute that it sets by its name."""
    held: str = getattr(security, f"tls_{name}")
    return held


def test_a_runs_certificates_are_valid_whatever_the_clock_says() -> None:
    security = temporary_certificates()
    certificate = x509.load_pem_x509_certificate(tls_of(security, "ca_file").encode())
    assert certificate.not_valid_before_utc.year < 1970
    assert certificate.not_valid_after_utc.year == 9999
    assert security.require_encryption
    keys = {tls_of(security, f"{side}_key") for side in ("client", "scheduler", "worker")}
    assert len(keys) == 1
    assert keys != {tls_of(temporary_certificates(), "client_key")}


def test_the_clock_is_the_time_of_day_until_that_jumps() -> None:
    assert abs(steady_clock.now() - time.time()) < 60
