"""A clock that jumps while a run works, by a day or a year, ahead or back, holds nothing up."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from distributed import Security
from places import ROOT

from assay.score.workers import steady_clock
from assay.score.workers.steady_clock import temporary_certificates

# libfaketime cannot do this: with monotonic clocks left alone, time.sleep fails in it.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long *seconds;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    void *mapped = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) seconds = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && seconds && clock == CLOCK_REALTIME) now->tv_sec += *seconds;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    int failed = clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
"""

# Tasks go to and fro while the clock jumps ahead and back, again and again: it is a message under way that a
# jump can hold up. Then it stands where it jumped to, and a new worker shakes hands.
TASKS = """
import os, signal, struct, sys, threading, time

from assay.score.workers.cluster import ClusterOptions, connected

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
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a clock that jumps for some processes alone needs a C compiler, on Linux")
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    (tmp_path / "offset").write_bytes(struct.pack("q", 0))
    (tmp_path / "tasks.py").write_text(TASKS)
    jumps = ["86400", "-86400", "31622400", "-31622400"]
    ran = subprocess.run(
        [sys.executable, tmp_path / "tasks.py", *jumps],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim),
            "CLOCK_OFFSET": str(tmp_path / "offset"),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        timeout=120,
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
