"""How a stage reports how far it is to whoever watches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from assay.core.text import counted


class Progress(Protocol):
    """Listens to a stage: one ``begin``, then ``advance`` and ``say`` as often as it likes."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """A stage starts: ``total`` units of work, None where that is not known."""

    def advance(self, count: int = 1, **details: object) -> None:
        """``count`` more units are done; details such as ``tokens``, ``retries``, ``worker`` are shown."""

    def say(self, line: str) -> None:
        """A line that a person should read: a warning, an assumption."""

    def did(self, work: object) -> None:
        """What a stage did in this run, once it has ended. It is never cached, as the stage's result is."""


class Utilisation:
    """How much of the time since a stage began the device of each worker was at work."""

    def __init__(self) -> None:
        self._busy_seconds: dict[str, float] = {}

    def add(self, details: Mapping[str, object]) -> None:
        """Take down what an ``advance`` tells of ``worker`` and its ``busy_seconds``."""
        worker, seconds = details.get("worker"), details.get("busy_seconds")
        if isinstance(worker, str) and isinstance(seconds, float) and seconds > 0:
            self._busy_seconds[worker] = self._busy_seconds.get(worker, 0.0) + seconds

    def told(self, seconds: float) -> str:
        """``4 devices 91–97% busy``, of so many seconds; nothing where nobody told."""
        if not self._busy_seconds or seconds <= 0:
            return ""
        shares = sorted(min(1.0, busy / seconds) for busy in self._busy_seconds.values())
        lowest, highest = f"{shares[0]:.0%}", f"{shares[-1]:.0%}"
        share = highest if lowest == highest else f"{lowest.removesuffix('%')}–{highest}"
        return f"{counted(len(shares), 'devices')} {share} busy"


class Silent:
    """Progress that nobody watches."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Nothing is shown."""

    def advance(self, count: int = 1, **details: object) -> None:
        """Nothing is shown."""

    def say(self, line: str) -> None:
        """Nothing is shown."""

    def did(self, work: object) -> None:
        """Nothing is shown."""


SILENT = Silent()
