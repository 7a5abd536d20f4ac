"""How a stage tells whoever watches how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Listens to a stage: one ``begin``, then ``advance`` and ``say`` as often as it likes."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """A stage starts: ``total`` units of work, None where that is not known."""

    def advance(self, count: int = 1, **details: object) -> None:
        """``count`` more units are done; details such as ``turns``, ``tokens``, ``seconds`` are shown."""

    def say(self, line: str) -> None:
        """A line that a person should read: a warning, an assumption."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Nothing is shown."""

    def advance(self, count: int = 1, **details: object) -> None:
        """Nothing is shown."""

    def say(self, line: str) -> None:
        """Nothing is shown."""
