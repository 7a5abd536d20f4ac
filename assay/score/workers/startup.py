"""Workers of our own that come up, or a sentence that says why they did not.

Dask tells of a failed start with a chain of exceptions whose last says least. Why it failed is at the chain's
other end, or in what its nannies log: they look after a worker's process, and see it die.
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

#: So often workers are started whose processes end before they are up: what killed them may not come again.
_ATTEMPTS = 2

_NANNY_LOG = "distributed.nanny"

#: What a nanny logs of its worker's process.
_DEATH = re.compile(r"was killed by signal \d+|exited with status \d+")

#: What the kernel does to a process for which there is no memory.
_KILLED = "was killed by signal 9"

_FEWER = "--workers N starts fewer"

_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room on that disk",
    errno.EACCES: "see that this user may write there",
    errno.EROFS: "see that this user may write there",
    errno.ENOMEM: f"memory is short: {_FEWER}",
    errno.EAGAIN: f"this user has as many processes as they may have (`ulimit -u`): {_FEWER}",
    errno.EMFILE: f"raise `ulimit -n`; {_FEWER}",
    errno.ENFILE: _FEWER,
}


def started(start: Callable[[], Started], *, progress: Progress) -> Started:
    """What ``start`` gives, which starts workers; once more where a worker's process died meanwhile.

    Raises ``ClusterFault`` with the reason where they do not come up.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        with _heard_of_nannies() as heard:
            try:
                return start()
            except AssayError:
                raise
            except (RuntimeError, OSError, ValueError, ImportError) as error:
                first = _first_cause(error, heard)
                death = _death(heard)
                if isinstance(first, RuntimeError) and attempt < _ATTEMPTS:
                    progress.say(
                        f"a worker's process {death} while it started; starting the workers once more"
                    )
                    continue
                raise ClusterFault(f"the workers could not be started: {_why(first, death)}") from error
    raise AssertionError("the last attempt returns or raises")


def _why(first: BaseException, death: str) -> str:
    """What to tell of it, and what to do."""
    if isinstance(first, RuntimeError):
        remedy = (
            f"most likely for want of memory: {_FEWER}"
            if death == _KILLED
            else "what it printed, if anything, stands above"
        )
        return f"a worker's process {death} while it started, {_ATTEMPTS} times; {remedy}"
    if isinstance(first, TimeoutError):
        return f"a worker was not up in time: the machine is too busy, or the process hangs; {_FEWER}"
    if isinstance(first, OSError) and first.strerror:
        place = f"{first.filename}: " if first.filename is not None else ""
        remedy = _REMEDIES.get(first.errno or 0, "")
        return f"{place}{first.strerror}" + (f" ({remedy})" if remedy else "")
    return f"{type(first).__name__}: {' '.join(str(first).split())}"


def _first_cause(error: BaseException, heard: list[logging.LogRecord]) -> BaseException:
    """What the failure began with: at the end of the chain, or logged by a nanny where that is no process."""
    while error.__cause__ is not None:
        error = error.__cause__
    logged = [record.exc_info[1] for record in heard if record.exc_info]
    if not isinstance(error, OSError):
        # A process that could not be made at all is logged, and fails at another place.
        return next((one for one in logged if isinstance(one, OSError)), error)
    return error


def _death(heard: list[logging.LogRecord]) -> str:
    """``was killed by signal 9`` or ``exited with status 1``, of the first process that did."""
    return next((found[0] for record in heard if (found := _DEATH.search(record.getMessage()))), "ended")


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


@contextmanager
def _heard_of_nannies() -> Iterator[list[logging.LogRecord]]:
    """Within, what Dask's nannies log goes into the list, and nowhere else."""
    log, kept = logging.getLogger(_NANNY_LOG), _Kept()
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
