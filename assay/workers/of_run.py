"""The workers of one run: started when a stage first has jobs for them, and kept for the stages after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from assay.core.errors import ClusterFault
from assay.core.jobs import IN_THIS_PROCESS, Job, Result
from assay.core.progress import Progress
from assay.storage.stage import RunContext
from assay.workers.cluster import ClusterOptions, connected, scores_on_gpus, worker_count
from assay.workers.dispatch import dispatch
from assay.workers.same_code import NoWorkerFits

if TYPE_CHECKING:
    from distributed import Client


#: A process that has loaded a larger model than this is not kept.
_KEPT_MODEL_BYTES = 1_000_000_000


class RunWorkers:
    """Does the jobs of a run's stages: processes on this machine's cores, or those behind a scheduler.

    To be used as a context, which ends them.
    """

    def __init__(self, options: ClusterOptions, *, reach_files: bool = True) -> None:
        """``reach_files``: whether the workers reach the files of stages, in ``ASSAY_HOME`` or in a bucket.

        ``options.model_bytes`` is that of the largest model that they will load.
        """
        self._options = dataclasses.replace(options, on_cores=True)
        self._reach_files = reach_files
        self._stack = ExitStack()
        self._client: Client | None = None
        self._cannot_start = False

    def __enter__(self) -> RunWorkers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def do(
        self,
        jobs: Iterable[Job[Result]],
        *,
        stage: str,
        progress: Progress,
        leave_if_unwanted: Callable[[], None],
        done: Callable[[Result], None],
    ) -> None:
        """Do every job of a stage: in this process if there is only one job, or only one worker to start.

        Workers elsewhere get even a single job: they run already, and may reach what this machine cannot.
        """
        listed = list(jobs)
        is_little = len(listed) < (1 if self.are_elsewhere else 2)
        if is_little or not self.are_several or not self._can_start(progress):
            IN_THIS_PROCESS.do(
                listed, stage=stage, progress=progress, leave_if_unwanted=leave_if_unwanted, done=done
            )
            return
        with self.client(progress) as client:
            dispatch(
                client, listed, stage=stage, progress=progress, leave_if_unwanted=leave_if_unwanted, done=done
            )

    def _can_start(self, progress: Progress) -> bool:
        """Whether workers are there. Where they do not start, a line says why: a run can go on by itself."""
        if self._client is not None:
            return True
        try:
            self._client = self._stack.enter_context(connected(self._options, progress))
        except NoWorkerFits:
            raise
        except ClusterFault as error:
            progress.say(f"{error}. The run's own process does what they would do")
            self._cannot_start = True
            return False
        return True

    @property
    def are_several(self) -> bool:
        """Whether jobs are done at the same time. Not with one worker, or where none reaches the files."""
        if self._cannot_start:
            return False
        if self._options.scheduler_address:
            return self._reach_files
        return worker_count(self._options) > 1

    @property
    def are_elsewhere(self) -> bool:
        """Whether the workers are those of a scheduler, which may be on other machines."""
        return bool(self._options.scheduler_address) and self.are_several

    @property
    def are_running(self) -> bool:
        """Whether a job needs no process to start first."""
        return self.are_elsewhere or self._client is not None

    @contextmanager
    def client(self, progress: Progress) -> Iterator[Client]:
        """Yield a client whose workers have connected. Raises what ``connected`` raises.

        An error in this context ends the workers, and with them all that is under way. A later stage, or
        another attempt, starts new ones.
        """
        if self._client is None:
            self._client = self._stack.enter_context(connected(self._options, progress))
        try:
            yield self._client
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the processes that were started here."""
        self._client = None
        self._stack.close()


@contextmanager
def workers_for(options: ClusterOptions, context: RunContext) -> Iterator[Client]:
    """Yield a client whose workers can load a model: the run's own, or else some that end with this context.

    Those of GPUs are always started anew: what a process has left on its GPU is not known. Workers that have
    loaded a large model end too: what comes after scoring needs that memory more than it needs seconds.
    """
    workers = context.workers
    if not isinstance(workers, RunWorkers) or scores_on_gpus(options):
        with connected(options, context.progress) as client:
            yield client
        return
    with workers.client(context.progress) as client:
        if options.show_dashboard is not None and client.dashboard_link:
            options.show_dashboard(client.dashboard_link)
        yield client
    if options.model_bytes > _KEPT_MODEL_BYTES and not options.scheduler_address:
        workers.end()
