"""A stage as a value: what it takes, what it makes, and when an earlier result may be used again.

Each stage is a constant beside its code: ``CONVERT`` in ``assay.read.convert``, ``SCORE`` in
``assay.score.scoring``, and so on. ``tasks.stage`` makes a Prefect task of any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from assay.core.digests import digest_of_bytes
from assay.core.jobs import IN_THIS_PROCESS, Job, Result, Workers
from assay.core.progress import SILENT, Progress
from assay.storage.home import Home

Given = TypeVar("Given")
Made = TypeVar("Made")


def _is_wanted() -> None:
    """Nobody has asked the run to end."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every stage needs besides its input. No result depends on it."""

    home: Home
    progress: Progress = SILENT
    leave_if_unwanted: Callable[[], None] = _is_wanted
    """Returns while the run is still wanted, else raises to end the stage. Called about every second."""

    workers: Workers = IN_THIS_PROCESS
    """Who does jobs of any stage. Asking them is worth it for seconds of work: they may have to start."""

    def say(self, line: str) -> None:
        """Show a line that a person should read."""
        self.progress.say(line)

    def do(
        self, jobs: Iterable[Job[Result]], *, stage: str, done: Callable[[Result], None], by: Workers
    ) -> None:
        """Have every job of a stage done ``by`` these. Calls ``done`` with each result, in any order."""
        by.do(
            jobs,
            stage=stage,
            progress=self.progress,
            leave_if_unwanted=self.leave_if_unwanted,
            done=done,
        )


@dataclass(frozen=True, slots=True)
class Stage(Generic[Given, Made]):
    """A step of a run: one dataclass goes in, one manifest comes out."""

    name: str
    version: int
    """Raise it when the same ``Given`` gives another ``Made`` than before."""
    made: type[Made]
    """The type that a kept manifest is read back as."""
    key: Callable[[Given], str] | None
    """A digest of all that the result depends on, except the version. None: the stage always runs."""
    is_current: Callable[[Given, Made, Home], bool]
    """Whether the files that the manifest names are there and unaltered."""
    run: Callable[[Given, RunContext], Made]
    says_when_stale: bool = True
    """Whether a run reports that a kept manifest is no longer current."""

    def digest(self, given: Given) -> str:
        """The digest that the result is kept under: of the name, the version and the key, as 32 hex digits.

        >>> never = lambda given, made, home: False
        >>> count = Stage("count", 1, int, str, never, lambda given, context: len(given))
        >>> count.digest("abc") == count.digest("abc"), count.digest("abc") == count.digest("abd")
        (True, False)
        """
        if self.key is None:
            raise TypeError(f"the stage {self.name} always runs, so its result is not kept")
        return digest_of_bytes(f"{self.name} {self.version}".encode(), self.key(given).encode())
