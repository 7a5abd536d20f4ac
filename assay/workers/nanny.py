"""What watches a worker's process: Dask's nanny, and a limit to how long the process may take to start."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from typing import Any

from distributed import Nanny, Status, Worker

from assay.workers.startup import HANGS, NANNY_LOG

#: A worker that has not started after this long hangs, however many start at once.
START_SECONDS = 300

_log = logging.getLogger(NANNY_LOG)


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

    Dask's own limit (``death_timeout``) fails with an AssertionError and leaves the process (2026.7.1).
    """

    def __init__(self, scheduler: str, **options: Any) -> None:
        super().__init__(scheduler, worker_class=ExplainingWorker, **options)

    async def instantiate(self) -> Status:
        """Start the process, the first one or one that replaces another."""
        limit = asyncio.get_running_loop().call_later(START_SECONDS, self._give_up)
        try:
            return await super().instantiate()
        finally:
            limit.cancel()

    def _give_up(self) -> None:
        _log.error(HANGS)
        pid = self.process and self.process.pid
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
