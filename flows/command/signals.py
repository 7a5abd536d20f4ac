"""Ctrl-C and SIGTERM: how a run is stopped, and by when it has stopped.

The first signal unwinds the run, which releases locks, ends workers and reports to Prefect. Python calls a
signal's handler between two bytecodes of the main thread only, which may be inside a long call of polars;
so a thread hears of the signal too, through the wake-up pipe that the interpreter writes at once, and ends
the process where unwinding takes too long or a second Ctrl-C says that it does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

GOES_ON = "What is finished is kept, and the same command goes on from there."

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

_STOPPED_BY = {INTERRUPTED: "Ctrl-C", TERMINATED: "SIGTERM"}

#: SIGTERM is to be obeyed within 10 s.
_UNWIND_SECONDS = 8.0


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Within, SIGINT raises KeyboardInterrupt and SIGTERM raises SystemExit(143), and both are final."""
    _terminated.clear()
    heard, sent = os.pipe()
    os.set_blocking(sent, False)
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate),
    }
    wakeup_before = signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(heard,), daemon=True, name="signals")
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(sent)
        watch.join()
        os.close(heard)


def stopped_by(exit_code: int) -> str:
    """The last line of a run that a signal ended."""
    return f"stopped by {_STOPPED_BY[exit_code]}. {GOES_ON}"


#: Whether SIGTERM came. A library in whose call it came may make another exception of the SystemExit.
_terminated = threading.Event()


def was_terminated() -> bool:
    """Whether SIGTERM came while ``stopping_on_signals`` was in force."""
    return _terminated.is_set()


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    _terminated.set()
    raise SystemExit(TERMINATED)


def _watch(heard: int) -> None:
    interrupts = 0
    deadline: threading.Timer | None = None
    while signals := os.read(heard, 64):
        interrupts += signals.count(signal.SIGINT)
        if interrupts > 1:
            _end_now(INTERRUPTED)
        if signal.SIGTERM in signals and deadline is None:
            deadline = threading.Timer(_UNWIND_SECONDS, _end_now, [TERMINATED])
            deadline.daemon = True
            deadline.start()
    if deadline is not None:
        deadline.cancel()


def _end_now(exit_code: int) -> NoReturn:
    """Kill every process that this one started, and end it without unwinding, though not without a word."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    # Who reads the last line may be gone, or may not read: nothing is waited for.
    with suppress(OSError, ValueError, AttributeError):
        os.set_blocking(sys.stderr.fileno(), False)
        os.write(sys.stderr.fileno(), f"{stopped_by(exit_code)}\n".encode())
    os._exit(exit_code)
