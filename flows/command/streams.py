"""Standard streams that are closed, that nobody reads, or whose disk is full."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2

#: The exit code of a command whose standard output nobody reads: that of a process that SIGPIPE ends.
UNREAD = 141


def open_closed_streams() -> None:
    """Connect standard input, output and error to nothing if they are closed.

    Otherwise the next file that is opened takes their place, and what is printed lands in it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            stream = open(descriptor, mode, errors="backslashreplace", closefd=False)  # noqa: SIM115  # for good
            setattr(sys, name, stream)


def discard(descriptor: int) -> None:
    """Let what is written to the descriptor from now on, and what a stream still holds for it, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def writing_results() -> Iterator[None]:
    """Write to standard output in this context. What is written is flushed at its end.

    SystemExit where it cannot be written: with ``UNREAD`` if nobody reads it, else with a line for the user.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        discard(STANDARD_OUTPUT)
        raise SystemExit(
            UNREAD if isinstance(error, BrokenPipeError) else f"error: standard output: {error.strerror}"
        ) from error


def complain(text: str) -> None:
    """Print to standard error. If that cannot be written, nothing is printed there from now on."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        with suppress(OSError):
            discard(STANDARD_ERROR)
