"""A stage's progress as a bar, in a notebook or a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from assay.core.text import printable


class Bars:
    """Progress that shows a bar a stage while it works, and lines that a person should read."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._done = 0.0
        self._total: int | None = None

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Show an empty bar of ``total`` units; none where the number is not known, or is 0."""
        self._end()
        self._total, self._done = total, 0
        if not total:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._bar.add_task(f"{stage} ({unit})", total=total)
        self._bar.start()

    def advance(self, count: int = 1, **details: object) -> None:
        """Move the bar on."""
        self._done += count
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)
            if self._total is not None and self._done >= self._total:
                self._end()

    def say(self, line: str) -> None:
        """Show a line above the bar."""
        self._console.print(printable(line), markup=False, highlight=False)

    def did(self, work: object) -> None:
        """Take the bar away: the stage has ended."""
        self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
