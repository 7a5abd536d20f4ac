"""Hand jobs to workers: the heaviest first, a bounded number at a time. No row stops the others."""

from __future__ import annotations

import queue
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple

from assay.core.errors import ClusterFault
from assay.core.jobs import Job, Result
from assay.core.progress import SILENT, Progress
from assay.workers.fit_workers import COUNT_SECONDS, FitWorkers
from assay.workers.in_worker import BATCHES_TOPIC, AskedBy, do_or_leave
from assay.workers.same_code import OtherCode, code_here

if TYPE_CHECKING:
    from distributed import Client, Future

#: How many jobs a worker has at a time: one in work, one waiting.
_IN_FLIGHT_PER_WORKER = 2

#: With no worker at all for this long, the run ends instead of waiting for ever.
NO_WORKERS_SECONDS = 60.0

#: How long to wait for the result of an ended job that names its workers.
_RESULT_SECONDS = 30.0

_GOES_ON = "what is finished is kept, and the same command goes on from there"


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
    _Dispatch(
        client,
        jobs,
        stage=stage,
        done=done,
        leave_if_unwanted=leave_if_unwanted,
        progress=progress,
        batch=batch,
        no_workers_seconds=no_workers_seconds,
    ).run()


class _Attempt(NamedTuple, Generic[Result]):
    """A job that was handed out."""

    future: Future[Result]
    job: Job[Result]
    alone: bool
    workers: Sequence[str] | None
    """The workers that may do the job. None: any."""


class _Dispatch(Generic[Result]):
    """The jobs of one stage, until all are done."""

    def __init__(
        self,
        client: Client,
        jobs: Iterable[Job[Result]],
        *,
        stage: str,
        done: Callable[[Result], None],
        leave_if_unwanted: Callable[[], None],
        progress: Progress,
        batch: Callable[[int, int], None],
        no_workers_seconds: float,
    ) -> None:
        self._client = client
        self._stage = stage
        self._done = done
        self._leave_if_unwanted = leave_if_unwanted
        self._progress = progress
        self._batch = batch
        self._no_workers_seconds = no_workers_seconds

        self._waiting = deque(sorted(jobs, key=lambda job: -job.weight))
        """Jobs to hand out, the next one first."""
        self._suspects: deque[Job[Result]] = deque()
        """Jobs to hand out alone, after all others."""
        self._in_flight: dict[str, _Attempt[Result]] = {}
        """What is handed out and has not ended, by Dask's key."""
        self._submitted = 0
        """How many attempts there were: each has a key of its own."""
        self._asked_by = AskedBy(secrets.token_hex(4), socket.gethostname())
        self._news = _News(self._asked_by.name)
        self._workers = FitWorkers(client, progress)
        self._last_seen_workers = time.monotonic()

    def run(self) -> None:
        """Have all jobs done."""
        self._client.subscribe_topic(BATCHES_TOPIC, self._news.take_batch)
        while self._waiting or self._suspects or self._in_flight:
            self._leave_if_unwanted()
            if self._workers.are_to_be_counted:
                self._count_workers()
            self._hand_out()
            news = self._next_news()
            if isinstance(news, _Batch):
                self._batch(*news)
            elif news in self._in_flight:
                self._end(self._in_flight.pop(news))

    def _count_workers(self) -> None:
        """Count the workers, and try again what names only workers that are gone."""
        some_are_named = any(attempt.workers is not None for attempt in self._in_flight.values())
        self._workers.count_now(some_are_named=some_are_named)
        for key, attempt in list(self._in_flight.items()):
            # A job that names workers would wait in Dask until one of them is back.
            if self._workers.are_gone(attempt.workers):
                self._in_flight.pop(key).future.release()
                self._try_again(attempt)

    def _hand_out(self) -> None:
        """Give every worker enough to do; where nothing else is left to be done, one suspect."""
        if self._workers.named == []:
            return
        while self._waiting and len(self._in_flight) < _IN_FLIGHT_PER_WORKER * max(1, self._workers.count):
            self._submit(self._waiting.popleft())
        if not self._in_flight:
            self._submit(self._suspects.popleft(), alone=True)

    def _submit(self, job: Job[Result], *, alone: bool = False) -> None:
        from distributed.protocol.pickle import dumps, loads

        self._submitted += 1
        key = f"{self._stage}-{self._asked_by.name}-{self._submitted}"
        call = _Call(do_if_same_code, dumps(job.sent()), code_here(), *self._asked_by)
        workers = self._workers.named
        future = self._client.submit(loads, dumps(call), pure=False, key=key, workers=workers)
        self._in_flight[key] = _Attempt(future, job, alone, workers)
        future.add_done_callback(partial(self._news.take_end, key))

    def _try_again(self, attempt: _Attempt[Result]) -> None:
        """Have the job done by another worker: this one has not done it."""
        (self._suspects if attempt.alone else self._waiting).appendleft(attempt.job)

    def _next_news(self) -> str | _Batch | None:
        """What is heard next, or nothing. Raises ``ClusterFault`` once there was no worker for too long."""
        news = self._news.next(COUNT_SECONDS)
        if news is not None or self._workers.count:
            self._last_seen_workers = time.monotonic()
        elif time.monotonic() - self._last_seen_workers > self._no_workers_seconds:
            raise ClusterFault(
                f"{self._workers.why_none()}, and none came back within {self._no_workers_seconds:.0f} s; "
                f"{_GOES_ON}"
            )
        return news

    def _end(self, attempt: _Attempt[Result]) -> None:
        """Take the result, or do what follows from there being none."""
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError

        try:
            result = attempt.future.result(None if attempt.workers is None else _RESULT_SECONDS)
        except TimeoutError:
            if attempt.workers is None or attempt.future.status == "error":
                raise
            # A dead worker takes its results with it. Dask would wait for another one that the job names.
            self._try_again(attempt)
        except KilledWorker:
            self._end_of_a_killer(attempt)
        except (FutureCancelledError, CommClosedError) as error:
            raise ClusterFault(f"the Dask scheduler is gone; {_GOES_ON}") from error
        except (OtherCode, ImportError, AttributeError, TypeError) as error:
            if self._workers.may_be_unfit(attempt.workers, error):
                self._try_again(attempt)
            elif do_if_same_code.__name__ in str(error):
                raise ClusterFault(
                    "a Dask worker loaded Assay before its files were replaced by newer ones: start the "
                    f"workers anew; {_GOES_ON}"
                ) from error
            else:
                raise
        else:
            self._done(result)
        finally:
            attempt.future.release()

    def _end_of_a_killer(self, attempt: _Attempt[Result]) -> None:
        """Have a job whose workers died run alone; if it was alone, its halves; else give it up."""
        job = attempt.job
        if not attempt.alone:
            self._progress.say(f"{job.name}: its worker died more than once; trying it again, alone")
            self._suspects.append(job)
        elif halves := job.halves():
            self._progress.say(f"{job.name}: it kills its worker; looking for the part that does it")
            self._suspects.extendleft(reversed(halves))
        else:
            self._done(job.of_a_killer())


class _Batch(NamedTuple):
    turns: int
    tokens: int


class _News:
    """What Dask's threads hear of a run's jobs, kept for the thread of the run.

    The client keeps it after the jobs are done, so it holds none of them.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._queue: queue.SimpleQueue[str | _Batch] = queue.SimpleQueue()

    def take_end(self, key: str, _: Future[Result]) -> None:
        """Keep that an attempt has ended, with a result or without."""
        self._queue.put(key)

    def take_batch(self, event: tuple[float, tuple[str, int, int]]) -> None:
        """Keep a batch, if it is of this run."""
        of_run, turns, tokens = event[1]
        if of_run == self._run:
            self._queue.put(_Batch(turns, tokens))

    def next(self, seconds: float) -> str | _Batch | None:
        """The key of an attempt that has ended, or a batch; None if nothing is heard for so long."""
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            return None


class _Call:
    """A call that unpickling makes.

    Dask unpickles a task's function as it reads a message: a worker that lacks the function would lose its
    connection, and count as killed by the job. So each task unpickles a call: where the function is missing,
    only the task fails.
    """

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def do_if_same_code(sent: bytes, code: str, name: str, host: str) -> object:
    """The result of the pickled job, made in a worker. Raises ``OtherCode`` where the run has other code.

    Only then is the job read. ``name`` and ``host`` are those of the run.

    This function stays in this module. A worker may have loaded Assay when there was no such check, and its
    files may have been replaced since: it looks for the function in the module that it has, and fails. It
    would load another module from the new files, and do the job with the rest of the old code.
    """
    from distributed import get_worker
    from distributed.protocol.pickle import loads

    if code != code_here():
        raise OtherCode(get_worker().address, code_here())
    job: Job[object] = loads(sent)
    return do_or_leave(job, AskedBy(name, host))
