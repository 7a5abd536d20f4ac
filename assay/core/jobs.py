"""Jobs: pieces of a stage's work that do not depend on each other, and who does them.

A job is a value that can be pickled. Its result is the same whoever does it, and it may be done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from assay.core.errors import KillsWorkers
from assay.core.progress import Progress

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


def _is_wanted() -> None:
    """Nobody has asked the job to end."""


def _nobody_hears(turns: int, tokens: int) -> None:
    """Nobody counts what is done of a job before it ends."""


@dataclass(frozen=True, slots=True)
class AtWork:
    """What a job is given where it is done."""

    check: Callable[[], None] = _is_wanted
    """Returns while the job is wanted, else raises to end it. It costs nothing: call it often."""
    heard: Callable[[int, int], None] = _nobody_hears
    """Takes the turns and tokens of a part that is done."""


class Job(Protocol[Result_co]):
    """A piece of work."""

    @property
    def name(self) -> str:
        """What messages call it: ``shard 5``."""

    @property
    def weight(self) -> int:
        """How much work it is, beside the other jobs of its kind. The heaviest is handed out first."""

    def sent(self) -> Job[Result_co]:
        """The job as it is sent to another process."""

    def done_by(self, at: AtWork) -> Result_co:
        """Do the job in this process. Returns its result, whose files are written."""

    def halves(self) -> Sequence[Job[Result_co]]:
        """Two jobs that are this one together. Nothing where it cannot be halved."""

    def of_a_killer(self) -> Result_co:
        """The result where every worker that took the job died, and it cannot be halved."""


class Workers(Protocol):
    """Those who do jobs."""

    @property
    def are_several(self) -> bool:
        """Whether they do jobs at the same time, in other processes."""

    @property
    def are_elsewhere(self) -> bool:
        """Whether the workers may be on other machines than the run."""

    @property
    def are_running(self) -> bool:
        """Whether they have started, so that little work is worth their while too."""

    def do(
        self,
        jobs: Iterable[Job[Result]],
        *,
        stage: str,
        progress: Progress,
        leave_if_unwanted: Callable[[], None],
        done: Callable[[Result], None],
    ) -> None:
        """Do every job of a stage. Calls ``done`` with the result of each as it ends, in any order.

        Raises what a job raises. Jobs that have ended stay done.
        """


class InThisProcess:
    """Does jobs one after the other, in the order given."""

    are_several = False
    are_elsewhere = False
    are_running = True

    def do(
        self,
        jobs: Iterable[Job[Result]],
        *,
        stage: str,
        progress: Progress,
        leave_if_unwanted: Callable[[], None],
        done: Callable[[Result], None],
    ) -> None:
        """Do every job of a stage."""
        at_work = AtWork(check=leave_if_unwanted)
        for job in jobs:
            done(job.done_by(at_work))


IN_THIS_PROCESS = InThisProcess()


class Numbered(Protocol):
    """A result that says which job of its stage it is of."""

    @property
    def number(self) -> int:
        """The job's place among all, from 0."""


Placed = TypeVar("Placed", bound=Numbered)


def in_order(take: Callable[[Placed], None]) -> Callable[[Placed], None]:
    """What to call with results in any order, so that ``take`` gets them in the order of their jobs."""
    waiting: dict[int, Placed] = {}
    first = 0

    def done(result: Placed) -> None:
        nonlocal first
        waiting[result.number] = result
        while (ready := waiting.pop(first, None)) is not None:
            take(ready)
            first += 1

    return done


def killer(name: str) -> KillsWorkers:
    """The fault of a job that no worker survives, and without which a run cannot go on."""
    return KillsWorkers(
        f"{name}: every worker that takes this dies, most likely of memory. Give the workers more of it, or "
        "start fewer (--workers N); what is finished is kept, and the same command goes on from there"
    )
