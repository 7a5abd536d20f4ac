"""How a stage reports its progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from assay.core.text import counted


class Progress(Protocol):
    """Shows a stage's work. The stage calls ``begin`` once, then ``advance`` and ``say`` at will."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """A stage starts. It has ``total`` units of work, or None where the number is not known."""

    def advance(self, count: int = 1, **details: object) -> None:
        """``count`` more units are done. Details (``tokens``, ``retries``, ``worker`` …) are shown too."""

    def say(self, line: str) -> None:
        """Show a line that a person should read, such as a warning or an assumption."""

    def did(self, work: object) -> None:
        """Take what the ended stage did in this run. Unlike the stage's result, it is never cached."""


class Utilisation:
    """The share of a stage's time in which each worker's device was busy."""

    def __init__(self) -> None:
        self._busy_seconds: dict[str, float] = {}

    def add(self, details: Mapping[str, object]) -> None:
        """Add the ``busy_seconds`` of a ``worker``, if the details of an ``advance`` name both."""
        worker, seconds = details.get("worker"), details.get("busy_seconds")
        if isinstance(worker, str) and isinstance(seconds, float) and seconds > 0:
            self._busy_seconds[worker] = self._busy_seconds.get(worker, 0.0) + seconds

    def summary(self, seconds: float) -> str:
        """``4 devices 91–97% busy`` in a stage of so many seconds; empty where no worker reported."""
        if not self._busy_seconds or seconds <= 0:
            return ""
        shares = sorted(min(1.0, busy / seconds) for busy in self._busy_seconds.values())
        lowest, highest = f"{shares[0]:.0%}", f"{shares[-1]:.0%}"
        share = highest if lowest == highest else f"{lowest.removesuffix('%')}–{highest}"
        return f"{counted(len(shares), 'devices')} {share} busy"


class Silent:
    """Progress that shows nothing."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Show nothing."""

    def advance(self, count: int = 1, **details: object) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def did(self, work: object) -> None:
        """Show nothing."""


SILENT = Silent()
