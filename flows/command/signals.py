"""Ctrl-C, SIGTERM and SIGHUP (the terminal is closed): how a run stops, and how soon.

The first signal raises an exception in the main thread. On its way out it releases locks, ends workers and
reports to Prefect. Python calls a signal's handler only between two bytecodes of the main thread, which may
be inside a long call of polars. So a thread waits for signals too, on the wake-up pipe, to which the
interpreter writes at once. It ends the process where stopping takes too long, or at a second Ctrl-C.
"""

from __future__ import annotations

import multiprocessing.util
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from flows.command.streams import STANDARD_ERROR, STANDARD_OUTPUT, discard

GOES_ON = "What is finished is kept, and the same command goes on from there."

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
HUNG_UP = 128 + signal.SIGHUP

#: The exit codes of SIGTERM and SIGHUP. After these signals a command has ``_UNWIND_SECONDS`` to end.
_ENDING_CODES = (TERMINATED, HUNG_UP)

_STOPPED_BY = {INTERRUPTED: "Ctrl-C", TERMINATED: "SIGTERM", HUNG_UP: "SIGHUP"}

#: A run has 10 s to stop after SIGTERM or SIGHUP; this leaves time to kill what is left.
_UNWIND_SECONDS = 8.0
_FINALIZE_SECONDS = 0.5


@contextmanager
def stopping_on_signals(*, goes_on: bool) -> Iterator[None]:
    """In this context, SIGINT raises KeyboardInterrupt, SIGTERM SystemExit(143) and SIGHUP SystemExit(129).

    Under ``nohup``, SIGHUP stays ignored.
    ``goes_on``: whether the same command would go on from where a signal stopped it.
    """
    _ended_by.clear()
    _interrupted.clear()
    heard, sent = os.pipe()
    os.set_blocking(sent, False)
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _end),
    }
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _end)
    wakeup_before = signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(heard, goes_on), daemon=True, name="signals")
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


def ending_code(leaving: SystemExit) -> int | None:
    """The exit code, if SIGTERM or SIGHUP raised this; else None."""
    return next((code for code in _ENDING_CODES if code == leaving.code), None)


def stopped_by(exit_code: int, *, goes_on: bool) -> str:
    """The last line of a command that a signal ended."""
    return f"stopped by {_STOPPED_BY[exit_code]}" + (f". {GOES_ON}" if goes_on else "")


#: Which signals came: the exit codes of SIGTERM and SIGHUP, and whether Ctrl-C did. A library may turn the
#: exception that is raised in its call into another one.
_ended_by: list[int] = []
_interrupted = threading.Event()

#: How long the thread that waits for signals may take to note one that has come.
_NOTICE_SECONDS = 0.5


def signalled() -> int | None:
    """The exit code of the signal that came inside ``stopping_on_signals``; None if none came."""
    if _ended_by:
        return _ended_by[0]
    return INTERRUPTED if _interrupted.wait(_NOTICE_SECONDS) else None


def _end(number: int, frame: FrameType | None) -> NoReturn:
    _ended_by.append(128 + number)
    if number == signal.SIGHUP:
        with suppress(OSError):
            _leave_dead_terminal()
    raise SystemExit(128 + number)


def _leave_dead_terminal() -> None:
    """Let what is printed go nowhere if its terminal is gone: printing there fails."""
    for descriptor in (STANDARD_OUTPUT, STANDARD_ERROR):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
            discard(descriptor)


def _watch(heard: int, goes_on: bool) -> None:
    interrupts = 0
    deadline: threading.Timer | None = None
    while signals := os.read(heard, 64):
        interrupts += signals.count(signal.SIGINT)
        if interrupts:
            _interrupted.set()
        if interrupts > 1:
            _end_now(INTERRUPTED, goes_on)
        ending = next((128 + number for number in signals if 128 + number in _ENDING_CODES), None)
        if ending is not None and deadline is None:
            deadline = threading.Timer(_UNWIND_SECONDS, _end_now, [ending, goes_on])
            deadline.daemon = True
            deadline.start()
    if deadline is not None:
        deadline.cancel()


def _end_now(exit_code: int, goes_on: bool) -> NoReturn:
    """Kill every process that this one started, print the last line, and end this process at once."""
    try:
        _kill_children()
        # Python would warn of semaphores that are left. A finalizer may wait for a thread that does not end.
        finalizers = threading.Thread(target=_finalize, daemon=True)
        finalizers.start()
        finalizers.join(_FINALIZE_SECONDS)
        # Dask may have replaced a worker meanwhile.
        _kill_children()
        # The reader of standard error may be gone, or may not read: do not wait for it.
        with suppress(OSError):
            os.set_blocking(STANDARD_ERROR, False)
            os.write(STANDARD_ERROR, f"{stopped_by(exit_code, goes_on=goes_on)}\n".encode())
    finally:
        os._exit(exit_code)


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            # Python's own resource tracker removes semaphores that are left, and then ends.
            if "multiprocessing.resource_tracker" not in "".join(child.cmdline()):
                child.kill()


def _finalize() -> None:
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
