"""Start workers of our own, or say in one sentence why they did not start.

Dask reports a failed start with a chain of exceptions. The last one says the least: the reason is the first
one, or stands in the log of the nannies, which watch the workers' processes and see them die.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from assay.core.errors import AssayError, ClusterFault
from assay.core.progress import Progress

Started = TypeVar("Started")

#: How often to start workers whose processes end while they start. What killed them may not happen again.
_ATTEMPTS = 2

NANNY_LOG = "distributed.nanny"

#: What is logged before a worker that hangs is killed.
HANGS = "the worker hangs while it starts"

#: What a nanny logs when its worker's process ends.
_DEATH = re.compile(r"was killed by signal \d+|exited with status \d+")

#: The kernel does this to a process when memory runs out.
_KILLED = "was killed by signal 9"

_FEWER = "--workers N starts fewer"

_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room on that disk",
    errno.EACCES: "make sure that this user may write there",
    errno.EROFS: "make sure that this user may write there",
    errno.ENOMEM: f"memory is short: {_FEWER}",
    errno.EAGAIN: f"this user has reached the limit of processes (`ulimit -u`): {_FEWER}",
    errno.EMFILE: f"raise `ulimit -n`; {_FEWER}",
    errno.ENFILE: _FEWER,
}


def started(start: Callable[[], Started], *, progress: Progress) -> Started:
    """What ``start``, which starts workers, returns. It runs again where a worker's process died meanwhile.

    Raises ``ClusterFault`` with the reason where the workers do not start.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        with _nanny_records() as records:
            try:
                return start()
            except AssayError:
                raise
            except (RuntimeError, OSError, ValueError, ImportError) as error:
                first = _first_cause(error, records)
                death = _death(records)
                if _is_death(first) and attempt < _ATTEMPTS:
                    progress.say(
                        f"a worker's process {death} while it started; starting the workers once more"
                    )
                    continue
                raise ClusterFault(f"the workers could not be started: {_why(first, death)}") from error
    raise AssertionError("the last attempt returns or raises")


def _why(first: BaseException, death: str) -> str:
    """Why the workers did not start, and what to do."""
    if _is_death(first):
        remedy = (
            f"most likely memory ran out: {_FEWER}"
            if death == _KILLED
            else "anything that it printed stands above"
        )
        return f"a worker's process {death} while it started, {_ATTEMPTS} times; {remedy}"
    if isinstance(first, TimeoutError):
        return f"a worker did not start in time: the machine is too busy, or the process hangs; {_FEWER}"
    if isinstance(first, OSError) and first.strerror:
        place = f"{first.filename}: " if first.filename is not None else ""
        remedy = _REMEDIES.get(first.errno or 0, "")
        return f"{place}{first.strerror}" + (f" ({remedy})" if remedy else "")
    said = " ".join(str(first).split())
    return said if isinstance(first, RuntimeError) else f"{type(first).__name__}: {said}"


def _is_death(first: BaseException) -> bool:
    """Whether a worker's process ended, as Dask says it."""
    return isinstance(first, RuntimeError) and str(first) == "Nanny failed to start worker process"


def _first_cause(error: BaseException, records: list[logging.LogRecord]) -> BaseException:
    """What went wrong first: what a nanny logged (a hang, an OSError), else the first error of the chain."""
    if any(record.getMessage() == HANGS for record in records):
        return TimeoutError()
    while error.__cause__ is not None:
        error = error.__cause__
    logged = [record.exc_info[1] for record in records if record.exc_info]
    if not isinstance(error, OSError):
        # Where a process could not be made at all, the nanny logs why, and the chain has another cause.
        return next((one for one in logged if isinstance(one, OSError)), error)
    return error


def _death(records: list[logging.LogRecord]) -> str:
    """How the first process that ended did so: ``was killed by signal 9`` or ``exited with status 1``."""
    return next((found[0] for record in records if (found := _DEATH.search(record.getMessage()))), "ended")


class _Kept(logging.Handler):
    """Keeps the records that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        self.records.append(record)


@contextmanager
def _nanny_records() -> Iterator[list[logging.LogRecord]]:
    """Yield a list that takes all that Dask's nannies log in this context, and keeps it from the console."""
    log, kept = logging.getLogger(NANNY_LOG), _Kept()
    level, propagate = log.level, log.propagate
    log.addHandler(kept)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield kept.records
    finally:
        log.removeHandler(kept)
        log.setLevel(level)
        log.propagate = propagate
