"""How many workers have the run's code, and which: asked now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from assay.core.progress import Progress
from assay.workers.same_code import OtherCode, asked_again, unfit_workers

if TYPE_CHECKING:
    from distributed import Client

#: How often the run asks the scheduler how many workers there are.
COUNT_SECONDS = 1.0

#: How often the run asks workers that had other code whether they have been started anew.
_ASK_UNFIT_SECONDS = 30.0


class FitWorkers:
    """The workers of a scheduler that may do a run's jobs, as they were last counted."""

    def __init__(self, client: Client, progress: Progress) -> None:
        self._client = client
        self._progress = progress
        self._unfit = unfit_workers(client)
        self.count = 0
        self.named: list[str] | None = None
        """The workers that jobs name, once one is unfit. None: any worker may do a job."""
        self._listed: list[str] | None = None
        """The workers that may do jobs. None: only their number is known."""
        self._counted = -math.inf
        """When they were counted."""
        self._asked = time.monotonic()
        """When those with other code were asked again."""

    @property
    def are_to_be_counted(self) -> bool:
        """Whether the last count is old."""
        return time.monotonic() - self._counted >= COUNT_SECONDS

    def count_now(self, *, some_are_named: bool) -> None:
        """See how many workers there are. List them too if one is unfit, or if a job that runs names some."""
        self._counted = time.monotonic()
        if self._unfit and self._counted - self._asked >= _ASK_UNFIT_SECONDS:
            self._asked = self._counted
            self._say(asked_again(self._client))
            self._counted = time.monotonic()
        if not self._unfit and not some_are_named:
            # Ask for their number only: a list of 1,000 workers costs both sides more than a job does.
            self.count = self._client.scheduler_info(n_workers=0)["n_workers"]
            self._listed = None
        else:
            there = self._client.scheduler_info(n_workers=-1)["workers"]
            self._listed = [address for address in there if address not in self._unfit]
            self.count = len(self._listed)
        self.named = self._listed if self._unfit else None

    def are_gone(self, named: Sequence[str] | None) -> bool:
        """Whether no worker is left of those that a job names."""
        return named is not None and self._listed is not None and not set(named).intersection(self._listed)

    def may_be_unfit(self, named: Sequence[str] | None, error: Exception) -> bool:
        """Whether a job that names these may have failed because its worker has other code.

        Jobs that are sent from now on avoid that worker.
        """
        if isinstance(error, OtherCode):
            address, code = error.args
            self._say(self._unfit.take({address: code}))
        else:
            # A worker with code from before the check cannot even read a job.
            self._say(asked_again(self._client))
        self._counted = -math.inf
        return bool(self._unfit) and (named is None or any(one in self._unfit for one in named))

    def why_none(self) -> str:
        """Why no worker may do a job, where none may."""
        return "no Dask worker has this run's code" if self._unfit else "all Dask workers are gone"

    def _say(self, line: str) -> None:
        if line:
            self._progress.say(line)
