"""A job in a worker: it sends what is done of it, and stops where nobody wants it or the worker is broken."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from assay.core.errors import AssayError, ClusterFault, DeviceLost, StoreFault
from assay.core.jobs import AtWork, Job, Result

if TYPE_CHECKING:
    from distributed import Worker

#: The topic of the events that batches are sent as. One for all runs: a scheduler never forgets a topic.
BATCHES_TOPIC = "assay-batches"

#: A worker sends what it has done of a job no more often than this.
_BATCHES_SECONDS = 0.5

#: The exit code of a worker whose GPU is lost. Its nanny then starts another worker.
DEVICE_LOST_EXIT = 71

#: The exit code of a worker whose memory ran out. Its nanny then starts another worker.
NO_MEMORY_EXIT = 72


class AskedBy(NamedTuple):
    """The run that wants a job."""

    name: str
    """Drawn anew for each stage: a scheduler may serve several runs, and takes equal keys for one task."""
    host: str


class _Unwanted(Exception):
    """The run that wants this job is gone. Nobody reads this message."""


class _Batches:
    """Sends a worker's batches to the run, several together: a small model scores many a second."""

    def __init__(self, worker: Worker, run: str) -> None:
        self._worker = worker
        self._run = run
        self._turns, self._tokens = 0, 0
        self._sent = time.monotonic()

    def note(self, turns: int, tokens: int) -> None:
        """Take a batch."""
        self._turns += turns
        self._tokens += tokens
        if time.monotonic() - self._sent >= _BATCHES_SECONDS:
            self._worker.log_event(BATCHES_TOPIC, [self._run, self._turns, self._tokens])
            self._turns, self._tokens, self._sent = 0, 0, time.monotonic()


def do_or_leave(job: Job[Result], run: AskedBy) -> Result:
    """The job's result, made in a worker; the job stops between two batches once the run is gone.

    While it works, it sends what it has done of the job to ``run``, as an event of Dask.

    Dask cannot interrupt a thread. It only notes in the worker's memory that a running task was cancelled, by
    the run or by a scheduler that lost the run. Reading that note costs nothing.

    Where the GPU is lost, the worker's process ends: a CUDA error stays with the process, so every later
    job would fail too. The nanny starts a new worker, and the scheduler hands out the job again. A job
    that does this twice is a suspect. A worker whose memory ran out, other than for a batch, is replaced too:
    what it still holds is not known.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def check() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise _Unwanted

    try:
        return job.done_by(AtWork(check, _Batches(worker, run.name).note))
    except DeviceLost as error:
        if worker.nanny is None:
            raise
        print(f"worker {os.getpid()}: {error}; it is replaced", file=sys.stderr, flush=True)
        os._exit(DEVICE_LOST_EXIT)
    except MemoryError:
        where = f"worker {os.getpid()} on {socket.gethostname()}: memory ran out"
        if worker.nanny is None:
            raise ClusterFault(
                f"{where}; give the workers more of it, or start them with nannies, which replace a worker"
            ) from None
        print(f"{where}; it is replaced", file=sys.stderr, flush=True)
        os._exit(NO_MEMORY_EXIT)
    except (AssayError, OSError) as error:
        raise _from_here(error, run) from None


def _from_here(error: AssayError | OSError, run: AskedBy) -> AssayError | OSError:
    """The error, which names this machine where another may not have the fault.

    One of many workers may not reach S3, or lack its credentials or a package. And a path of another machine
    than the run's is not where its reader looks first.
    """
    host = socket.gethostname()
    if host == run.host and not isinstance(error, StoreFault):
        return error
    if isinstance(error, AssayError):
        return type(error)(f"worker on {host}: {error}")
    return OSError(error.errno, f"{error.strerror or error} (worker on {host})", error.filename)
