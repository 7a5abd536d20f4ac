"""What watches a worker's process: Dask's nanny, and a limit to how long the process may take to start."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Any, Literal

from distributed import Nanny, Status, Worker

from assay.workers.startup import HANGS, NANNY_LOG

#: A worker that has not started after this long hangs, however many start at once.
START_SECONDS = 300

_log = logging.getLogger(NANNY_LOG)


def _keep_interrupts_from_children() -> None:
    """Block SIGINT and SIGHUP in this thread, and so in the processes that it starts from now on.

    A terminal sends both to all processes of a run. The run itself ends its workers, and the process in which
    Python keeps a list of semaphores has to outlive it.
    """
    if threading.current_thread() is threading.main_thread():
        return
    signals = {signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    # This starts that process the first time it is called, and then unblocks SIGINT.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


class ExplainingWorker(Worker):
    """A worker that says why it does not start. On their way to the nanny, errors lose their causes."""

    async def __aenter__(self) -> ExplainingWorker:
        try:
            await self
        except RuntimeError as error:
            first: BaseException = error
            while first.__cause__ is not None:
                first = first.__cause__
            raise RuntimeError(f"{type(first).__name__}: {' '.join(str(first).split())}") from error
        return self


class LimitedNanny(Nanny):
    """A nanny that kills a process that has not started after ``START_SECONDS``.

    Dask's own limit (``death_timeout``) fails with an AssertionError (2026.7.1).
    """

    def __init__(self, scheduler: str, **options: Any) -> None:
        super().__init__(scheduler, worker_class=ExplainingWorker, **options)
        self._limit: asyncio.TimerHandle | None = None

    async def instantiate(self) -> Status:
        """Start the process, the first one or one that replaces another."""
        _keep_interrupts_from_children()
        # A start whose process died may still wait here, while the next process starts.
        self._lift_limit()
        self._limit = own = asyncio.get_running_loop().call_later(START_SECONDS, self._give_up)
        try:
            return await super().instantiate()
        finally:
            if self._limit is own:
                self._lift_limit()

    async def close(  # type: ignore[override]  # as Dask's own
        self, timeout: float = 5, reason: str = "nanny-close"
    ) -> Literal["OK"]:
        """End the process, at once if it is still starting: Dask would wait until it has started."""
        self._lift_limit()
        if self.process is not None and self.process.status == Status.starting:
            self._kill()
        return await super().close(timeout, reason)

    def _lift_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        _log.error(HANGS)
        self._kill()

    def _kill(self) -> None:
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
