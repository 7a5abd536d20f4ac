"""Faults that strike a run of Assay: its processes, the files that it keeps, the disk that it writes to."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).resolve().parent.parent
# What the tests have for such faults too.
sys.path.insert(0, str(ROOT / "tests"))
from clocks import Clock  # noqa: E402

#: The name that a forked server of a run has in lists of processes (flows/server/embedded.py).
SERVER = "assay-prefect"
DISK_BYTES = 1 << 29
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Place:
    """A folder with everything that the runs of a soak read and write, their temporary files included."""

    folder: Path
    chats: Path
    options: Sequence[str] = ()
    clock: Clock | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def output(self, name: str = "out") -> Path:
        return self.folder / name

    def lock(self, name: str = "out") -> Path:
        """The file that shows who writes to an output. It stays, empty."""
        return self.folder / f".{name}.lock"

    def start(self, output: str = "out") -> Run:
        """A run under way."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        # Not a pipe, which a run fills while nobody reads; and not on the disk that is filled.
        said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "flows.curate", "--input", str(self.chats)),
                *("--output", str(self.output(output)), *self.options),
            ],
            env={
                **os.environ,
                **(self.clock.environment if self.clock else {}),
                "ASSAY_HOME": str(self.home),
                "TMPDIR": str(self.temporary),
            },
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        return Run(self, process, output, said)

    def processes(self) -> list[psutil.Process]:
        """Every living process that has this home, whoever its parent is by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                ours = process.environ().get("ASSAY_HOME") == str(self.home)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@dataclass(frozen=True)
class Run:
    """A run of the command line."""

    place: Place
    process: subprocess.Popen[bytes]
    output: str
    said: IO[str]

    def is_over(self, seconds: float) -> bool:
        """Whether it has ended, once so many seconds have passed or before."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.process.poll() is not None

    def ended(self, seconds: float) -> tuple[int | None, str]:
        """Its exit code and standard error. The code is None where it hung and was killed."""
        hung = False
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            hung = True
            for process in self.place.processes():
                process.kill()
            self.process.wait()
        with self.said as file:
            file.seek(0)
            said = file.read()
        return None if hung else self.process.returncode, said

    def part(self, name: str, chance: random.Random) -> psutil.Process | None:
        """One of its processes: ``driver``, ``worker``, ``server`` or ``helper``. None where it has none."""
        found = [one for one in self.place.processes() if _part(one, self.process.pid) == name]
        return chance.choice(sorted(found, key=lambda one: one.pid)) if found else None


def _part(process: psutil.Process, driver: int) -> str | None:
    try:
        if process.pid == driver:
            return "driver"
        command = " ".join(process.cmdline())
        if process.name() == SERVER or "flows.server.embedded" in command:
            return "server"
        if "resource_tracker" in command:
            return None
        return "worker" if "multiprocessing.spawn" in command else "helper"
    except psutil.NoSuchProcess:
        return None


#: Strikes the run and says what it did; None where there was nothing to strike.
Strike = Callable[[Run, random.Random], str | None]


def kill(part: str) -> Strike:
    """``kill -9`` of a process."""

    def strike(run: Run, chance: random.Random) -> str | None:
        process = run.part(part, chance)
        if process is None:
            return None
        with suppress(psutil.NoSuchProcess):
            process.kill()
        return f"kill -9 of the {part}"

    return strike


def stop(part: str) -> Strike:
    """SIGSTOP, and SIGCONT some seconds later."""

    def strike(run: Run, chance: random.Random) -> str | None:
        process = run.part(part, chance)
        if process is None:
            return None
        seconds = chance.uniform(0.2, 5)
        with suppress(psutil.NoSuchProcess):
            process.suspend()
            time.sleep(seconds)
            process.resume()
        return f"the {part} stopped for {seconds:.1f} s"

    return strike


def end(number: signal.Signals) -> Strike:
    """A signal that asks the driver to stop."""

    def strike(run: Run, chance: random.Random) -> str | None:
        with suppress(ProcessLookupError):
            run.process.send_signal(number)
        return number.name

    return strike


def fill_the_disk(run: Run, chance: random.Random) -> str | None:
    """Not a byte is left on the disk for some seconds."""
    filler = run.place.folder / "filler"
    seconds = chance.uniform(0.3, 4)
    deadline = time.monotonic() + seconds
    try:
        with filler.open("wb", buffering=0) as file:
            while time.monotonic() < deadline and run.process.poll() is None:
                for size in (1 << 20, 1 << 12, 1):
                    with suppress(OSError):
                        while file.write(bytes(size)) == size:
                            pass
                time.sleep(0.05)
    finally:
        filler.unlink()
    return f"a full disk for {seconds:.1f} s"


def set_the_clock(run: Run, chance: random.Random) -> str | None:
    """The time of day jumps by up to a year, ahead or back, for the run and all that follow."""
    if run.place.clock is None:
        return None
    days = chance.choice((-1, 1)) * 10 ** chance.uniform(-4, 2.56)
    run.place.clock.set(round(days * DAY_SECONDS))
    return f"the clock is off by {days:.4f} days"


STRIKES: dict[str, Strike] = {
    "kill the driver": kill("driver"),
    "kill a worker": kill("worker"),
    "kill the server": kill("server"),
    "kill a helper": kill("helper"),
    "stop the driver": stop("driver"),
    "stop a worker": stop("worker"),
    "stop the server": stop("server"),
    "SIGTERM": end(signal.SIGTERM),
    "Ctrl-C": end(signal.SIGINT),
}
NEEDS_A_CLOCK: dict[str, Strike] = {"set the clock": set_the_clock}
NEEDS_A_DISK: dict[str, Strike] = {"fill the disk": fill_the_disk}


def damage(home: Path, chance: random.Random) -> str | None:
    """Flip a bit of any file of the home, or cut it short."""
    files = sorted(path for path in home.rglob("*") if path.is_file() and path.stat().st_size)
    if not files:
        return None
    path = chance.choice(files)
    data = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        bit = chance.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        done = f"bit {bit} of {len(data)} bytes flipped in"
    else:
        left = chance.choice((0, chance.randrange(len(data))))
        done = f"{left} of {len(data)} bytes left of"
        del data[left:]
    path.write_bytes(data)
    return f"{done} {path.relative_to(home)}"


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Inside this context the folder is a disk of its own. Whether it is one: only root can have it."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
