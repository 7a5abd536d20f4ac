"""A clock that some processes alone see, and that a test can set."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

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


@dataclass(frozen=True)
class Clock:
    """The time of day of processes that are started with its environment."""

    folder: Path

    @staticmethod
    def can_be_made() -> bool:
        """Whether this machine can make a clock for some processes alone."""
        return shutil.which("cc") is not None and sys.platform == "linux"

    @classmethod
    def made(cls, folder: Path) -> Clock:
        """A clock that is right until it is set. Skips the test where there can be none."""
        if not cls.can_be_made():
            pytest.skip("a clock that jumps for some processes alone needs a C compiler, on Linux")
        folder.mkdir()
        (folder / "shim.c").write_text(SHIM)
        shared = ("-shared", "-fPIC", "-o", str(folder / "shim.so"))
        subprocess.run(["cc", *shared, str(folder / "shim.c"), "-ldl"], check=True)
        clock = cls(folder)
        (folder / "offset").write_bytes(struct.pack("q", 0))
        return clock

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables of the processes that have this clock."""
        return {"LD_PRELOAD": str(self.folder / "shim.so"), "CLOCK_OFFSET": str(self.folder / "offset")}

    def set(self, seconds: int) -> None:
        """So many seconds after the right time, also for processes that are running."""
        with (self.folder / "offset").open("r+b") as file:
            file.write(struct.pack("q", seconds))

    def time(self) -> float:
        """What a process that has this clock takes for the time, in seconds since 1970."""
        asked = [sys.executable, "-c", "import time; print(time.time())"]
        answer = subprocess.run(asked, env={**self.environment}, stdout=subprocess.PIPE, check=True)
        return float(answer.stdout)
