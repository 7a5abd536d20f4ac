"""Who does jobs in tests of stages, in the place of Dask's workers."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed.protocol.pickle import dumps, loads
from running_dask import until

from assay.core.jobs import AtWork, Job, Result
from assay.core.progress import Progress


@dataclass
class Backwards:
    """Does the jobs in this process, the last one first, each as another process would get it."""

    are_several = True
    are_elsewhere: bool = False
    are_running: bool = False
    names: list[str] = field(default_factory=list)
    """Of the jobs that were done."""
    changed: Callable[[Any], Any] = lambda result: result
    """What becomes of a result on its way."""
    there: Callable[[], AbstractContextManager[None]] = nullcontext
    """Where the jobs are done."""

    def do(
        self,
        jobs: Iterable[Job[Result]],
        *,
        stage: str,
        progress: Progress,
        leave_if_unwanted: Callable[[], None],
        done: Callable[[Result], None],
    ) -> None:
        """Do every job."""
        sent = [dumps(job.sent()) for job in reversed(list(jobs))]
        with self.there():
            for data in sent:
                job: Job[Result] = loads(data)
                self.names.append(job.name)
                done(loads(dumps(self.changed(job.done_by(AtWork())))))


class Deadly:
    """Workers that every job kills."""

    are_several = True
    are_elsewhere = False
    are_running = False

    def do(
        self,
        jobs: Iterable[Job[Result]],
        *,
        stage: str,
        progress: Progress,
        leave_if_unwanted: Callable[[], None],
        done: Callable[[Result], None],
    ) -> None:
        """Halve every job as far as it goes, and give it up."""
        for job in jobs:
            if halves := job.halves():
                self.do(
                    halves, stage=stage, progress=progress, leave_if_unwanted=leave_if_unwanted, done=done
                )
            else:
                done(job.of_a_killer())


@dataclass(frozen=True)
class Noted:
    """A job that notes who does it, in a folder of notes."""

    number: int
    folder: Path
    harm: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"note {self.number}"

    @property
    def weight(self) -> int:
        """All weigh the same."""
        return 1

    def sent(self) -> Noted:
        """As it is."""
        return self

    def done_by(self, at: AtWork) -> int:
        """The number of the process."""
        if self.harm == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.harm == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        if self.harm == "wait":
            until((self.folder / "go").exists, "the test lets it go")
        (self.folder / f"{self.number}-{os.getpid()}").touch()
        return os.getpid()

    def halves(self) -> tuple[Noted, ...]:
        """Nothing."""
        return ()

    def of_a_killer(self) -> int:
        """No process."""
        return 0
