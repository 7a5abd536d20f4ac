"""Hand jobs to workers: the heaviest first, a bounded number at a time. No row stops the others."""

from __future__ import annotations

import math
import os
import queue
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple

from assay.core.errors import AssayError, ClusterFault, DeviceLost, StoreFault
from assay.core.jobs import AtWork, Job, Result
from assay.core.progress import SILENT, Progress
from assay.workers.same_code import OtherCode, asked_again, code_here, unfit_workers

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

#: How many jobs a worker has at a time: one in work, one waiting.
_IN_FLIGHT_PER_WORKER = 2

#: How often the run asks the scheduler how many workers there are.
_COUNT_SECONDS = 1.0

#: How often the run asks workers that had other code whether they have been started anew.
_ASK_UNFIT_SECONDS = 30.0

#: The topic of these events. One for all runs: a scheduler never forgets a topic.
_BATCHES = "assay-batches"

#: A worker sends what it has done of a job no more often than this.
_BATCHES_SECONDS = 0.5

#: With no worker at all for this long, the run ends instead of waiting for ever.
NO_WORKERS_SECONDS = 60.0

#: How long the result of a job that names its workers may be on its way.
_RESULT_SECONDS = 30.0

_GOES_ON = "what is finished is kept, and the same command goes on from there"


class _Batch(NamedTuple):
    turns: int
    tokens: int


class _Attempt(NamedTuple, Generic[Result]):
    future: Future[Result]
    job: Job[Result]
    alone: bool
    workers: Sequence[str] | None
    """Those that may do it; None: any."""


class _Run(NamedTuple):
    """Who wants a job."""

    name: str
    """A scheduler may serve several runs, and it takes equal keys for one task."""
    host: str


#: The exit code of a worker whose GPU is lost. Its nanny then starts another worker.
DEVICE_LOST_EXIT = 71
#: With which a worker ends that found no memory.
NO_MEMORY_EXIT = 72


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
            self._worker.log_event(_BATCHES, [self._run, self._turns, self._tokens])
            self._turns, self._tokens, self._sent = 0, 0, time.monotonic()


class _Call:
    """A call that is made where it is unpickled.

    Dask unpickles a task's function as it reads a message: a worker that lacks the function would lose its
    connection, and count as killed by the job. So a task is to unpickle a call, which can just fail.
    """

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def do_if_same_code(sent: bytes, code: str, name: str, host: str) -> object:
    """The result of the pickled job, made in a worker. Raises ``OtherCode`` where the run has other code.

    Only then is the job read. ``name`` and ``host`` are those of the run.
    """
    from distributed import get_worker
    from distributed.protocol.pickle import loads

    if code != code_here():
        raise OtherCode(get_worker().address, code_here())
    job: Job[object] = loads(sent)
    return do_or_leave(job, _Run(name, host))


def do_or_leave(job: Job[Result], run: _Run) -> Result:
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


def _from_here(error: AssayError | OSError, run: _Run) -> AssayError | OSError:
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


def dispatch(
    client: Client,
    jobs: Iterable[Job[Result]],
    *,
    stage: str,
    done: Callable[[Result], None],
    leave_if_unwanted: Callable[[], None],
    progress: Progress = SILENT,
    batch: Callable[[int, int], None] = lambda turns, tokens: None,
    no_workers_seconds: float = NO_WORKERS_SECONDS,
) -> None:
    """Have every job of a stage done. Calls ``done`` with the result of each as it ends.

    Before that, ``batch`` is called with the turns and tokens of batches as workers end them. A job that
    ends may have had batches that nobody heard of, and one whose worker dies has them again. Raises what a
    job raises.

    A job whose workers die is a suspect. The other jobs finish first. Then the suspect runs alone, so
    that no innocent job is blamed. If it kills again it is halved, as far as that goes.
    """
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError
    from distributed.protocol.pickle import dumps, loads

    waiting = deque(sorted(jobs, key=lambda job: -job.weight))
    suspects: deque[Job[Result]] = deque()
    in_flight: dict[str, _Attempt[Result]] = {}
    finished: queue.SimpleQueue[str | _Batch] = queue.SimpleQueue()
    submitted = 0
    run = _Run(secrets.token_hex(4), socket.gethostname())
    last_seen_workers = time.monotonic()
    worker_count, counted = 0, -math.inf
    unfit = unfit_workers(client)
    asked = time.monotonic()
    fit: list[str] | None = None

    def submit(job: Job[Result], *, alone: bool = False) -> None:
        nonlocal submitted
        submitted += 1
        key = f"{stage}-{run.name}-{submitted}"
        call = _Call(do_if_same_code, dumps(job.sent()), code_here(), *run)
        future = client.submit(loads, dumps(call), pure=False, key=key, workers=fit)
        in_flight[key] = _Attempt(future, job, alone, fit)
        future.add_done_callback(lambda _: finished.put(key))

    def again(attempt: _Attempt[Result]) -> None:
        """Have the job done by another worker: this one has not done it."""
        if attempt.alone:
            suspects.appendleft(attempt.job)
        else:
            waiting.appendleft(attempt.job)

    def count_workers() -> None:
        """See how many workers there are, and which, where some are unfit: only then jobs name workers."""
        nonlocal worker_count, counted, fit, asked
        counted = time.monotonic()
        if unfit and counted - asked >= _ASK_UNFIT_SECONDS:
            asked = counted
            if line := asked_again(client):
                progress.say(line)
            counted = time.monotonic()
        if not unfit:
            # Ask for their number only: a list of 1,000 workers costs both sides more than a job does.
            worker_count = client.scheduler_info(n_workers=0)["n_workers"]
            fit = None
            return
        fit = [address for address in client.scheduler_info(n_workers=-1)["workers"] if address not in unfit]
        worker_count = len(fit)
        for key, attempt in list(in_flight.items()):
            # Dask would wait for ever for those whom a job names.
            if attempt.workers is not None and not set(attempt.workers).intersection(fit):
                in_flight.pop(key).future.release()
                again(attempt)

    def was_unfit(attempt: _Attempt[Result], error: Exception) -> bool:
        """Whether the attempt may have failed because its worker has other code; then jobs avoid it."""
        nonlocal counted
        if isinstance(error, OtherCode):
            address, code = error.args
            line = unfit.take({address: code})
        else:
            # Code from before there was a check cannot even take a job.
            line = asked_again(client)
        if line:
            progress.say(line)
        counted = -math.inf
        return bool(unfit) and (attempt.workers is None or any(one in unfit for one in attempt.workers))

    def hear(event: tuple[float, tuple[str, int, int]]) -> None:
        """Keep what Dask's thread hears of this run's batches for this one, beside what is finished."""
        of_run, turns, tokens = event[1]
        if of_run == run.name:
            finished.put(_Batch(turns, tokens))

    client.subscribe_topic(_BATCHES, hear)
    while waiting or suspects or in_flight:
        leave_if_unwanted()
        if time.monotonic() - counted >= _COUNT_SECONDS:
            count_workers()
        if fit != []:
            while waiting and len(in_flight) < _IN_FLIGHT_PER_WORKER * max(1, worker_count):
                submit(waiting.popleft())
            if not in_flight:
                submit(suspects.popleft(), alone=True)
        try:
            news = finished.get(timeout=_COUNT_SECONDS)
        except queue.Empty:
            if worker_count:
                last_seen_workers = time.monotonic()
            elif time.monotonic() - last_seen_workers > no_workers_seconds:
                gone = "no Dask worker has this run's code" if unfit else "all Dask workers are gone"
                raise ClusterFault(
                    f"{gone}, and none came back within {no_workers_seconds:.0f} s; {_GOES_ON}"
                ) from None
            continue
        last_seen_workers = time.monotonic()
        if isinstance(news, _Batch):
            batch(*news)
            continue
        if news not in in_flight:
            continue
        attempt = in_flight.pop(news)
        job = attempt.job
        try:
            result = attempt.future.result(None if attempt.workers is None else _RESULT_SECONDS)
        except TimeoutError:
            if attempt.workers is None or attempt.future.status == "error":
                raise
            # A worker that dies takes its results with it, and Dask waits for another that the job names.
            again(attempt)
        except KilledWorker:
            if not attempt.alone:
                progress.say(f"{job.name}: its worker died more than once; trying it again, alone")
                suspects.append(job)
            elif halves := job.halves():
                progress.say(f"{job.name}: it kills its worker; looking for the part that does it")
                suspects.extendleft(reversed(halves))
            else:
                done(job.of_a_killer())
        except (FutureCancelledError, CommClosedError) as error:
            raise ClusterFault(f"the Dask scheduler is gone; {_GOES_ON}") from error
        except (OtherCode, ImportError, AttributeError, TypeError) as error:
            if not was_unfit(attempt, error):
                if do_if_same_code.__name__ in str(error):
                    raise ClusterFault(
                        "a Dask worker loaded Assay before its files were replaced by newer ones: start the "
                        f"workers anew; {_GOES_ON}"
                    ) from error
                raise
            again(attempt)
        else:
            done(result)
        finally:
            attempt.future.release()
