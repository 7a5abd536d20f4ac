"""What a person sees of a run: a bar on a terminal or lines in a log, and a line for each finished stage.

Progress and warnings go to standard error. The summary, which is the run's result, goes to standard output. A
deployment's run writes its lines to its log in Prefect, which its page shows and its worker prints.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TextIO, TypeVar
from uuid import UUID

import msgspec
import rich.console
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from assay.core.progress import Utilisation
from assay.core.text import counted, printable
from assay.storage.run_manifest import RunManifest
from flows.command.streams import STANDARD_ERROR, discard, writing_results

Work = TypeVar("Work")

_PLAIN_SECONDS = 10.0
#: In a log that a server keeps, of a run that may take days.
_LOG_SECONDS = 60.0
_REDRAWS_PER_SECOND = 8
_STAGE_WIDTH = 8
_NARROW = 80
_BAR_WIDTH = 14
#: What a terminal has beside the words about the progress: the stage, the bar, and what parts them.
_BESIDE = _STAGE_WIDTH + _BAR_WIDTH + 3
#: Stages that are mostly over before a person reads in a log that they began.
_SHORT_STAGES = ("ingest", "filter", "export", "report")
#: How lines begin that ``--quiet`` shows.
_GRAVE = ("warning: ", "error: ")


class ShownStage:
    """One stage as the console shows it: the line for its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cached = False
        """Whether its result came from the cache."""
        self.note = ""
        """Its result in a few words, such as ``1,002 records``."""


class Showing(NamedTuple):
    """How much a person wants to see."""

    is_quiet: bool = False
    """Warnings and errors, and nothing else."""
    as_json: bool = False
    """The result as one JSON value on standard output, and no table."""


class _Screen(rich.console.Console):
    """Standard error. A run goes on if nobody reads it: rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        discard(STANDARD_ERROR)


class _Results(rich.console.Console):
    """Standard output."""

    def on_broken_pipe(self) -> None:
        """Leave the error to ``writing_results``: rich would end the process with exit code 1."""
        raise  # noqa: PLE0704  # rich calls this where it has caught the error


class Console:
    """Shows a run as it goes on. Implements ``assay.core.progress.Progress``, and times the stages."""

    def __init__(
        self,
        *,
        errors: TextIO | None = None,
        results: TextIO | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """A console on the process's standard streams, unless others are given.

        If there is a ``log``, it gets every line in place of standard error.
        """
        self.showing = Showing()
        self._log = log
        self._screen = _Screen(file=errors or sys.stderr, highlight=False, soft_wrap=False)
        results = results or sys.stdout
        # In a log or a mail, a table that is no wider than most terminals is easy to read.
        wide = _Results(file=results, highlight=False)
        self._results = wide if wide.is_terminal else _Results(file=results, width=_NARROW)
        self._bars: Progress | None = None
        self._bar: TaskID | None = None
        self._name = ""
        self._unit = ""
        self._total: int | None = None
        self._done = 0
        self._sums: dict[str, float] = {}
        self._utilisation = Utilisation()
        self._currency = ""
        self._began = 0.0
        self._moved: tuple[float, int] | None = None
        self._spoke = 0.0
        self._works: list[object] = []
        self.seconds: dict[str, float] = {}
        """How long each stage took, by its name, in the order they ran."""
        self.flow_run_id: UUID | None = None
        """The Prefect flow run that this console shows."""
        self.outcome: RunManifest | None = None
        """The run's manifest, once its results are in place."""

    @contextmanager
    def stage(self, name: str) -> Iterator[ShownStage]:
        """Yield the stage that runs now. At its end, one line shows its result and how long it took."""
        shown = ShownStage(name)
        start = time.monotonic()
        try:
            yield shown
        finally:
            self._end_bar()
            self.seconds[name] = time.monotonic() - start
        note = f"cached  {shown.note}" if shown.cached else shown.note
        self._line(f"{name:<{_STAGE_WIDTH}} {note}", f"{self.seconds[name]:.1f} s")

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Show a bar; in a log, a line that the stage begins."""
        self._end_bar()
        self._name, self._unit, self._total = stage, unit, total
        self._done, self._sums, self._utilisation = 0, {}, Utilisation()
        self._began = self._spoke = time.monotonic()
        self._moved = None
        if self.showing.is_quiet:
            return
        if self._screen.is_terminal and self._log is None:
            self._bars = Progress(
                TextColumn(f"{{task.description:<{_STAGE_WIDTH}}}"),
                BarColumn(bar_width=_BAR_WIDTH),
                TextColumn("{task.fields[about]}"),
                console=self._screen,
                transient=True,
                refresh_per_second=_REDRAWS_PER_SECOND,
            )
            self._bar = self._bars.add_task(stage, total=total, about=self._about())
            self._bars.start()
        elif total is not None and stage not in _SHORT_STAGES:
            self.say(f"{stage}: {_amount(total, unit)}")

    def advance(self, count: int = 1, **details: object) -> None:
        """Move the bar; in a log, print a line with the progress every few seconds."""
        self._done += count
        if self._moved is None:
            # The first batch waits for workers and their models: it says nothing of the rate.
            self._moved = (time.monotonic(), self._done)
        self._currency = str(details.get("currency", self._currency))
        self._utilisation.add(details)
        for name, value in details.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._sums[name] = self._sums.get(name, 0) + value
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=self._done, about=self._about())
        elif time.monotonic() - self._spoke >= (_PLAIN_SECONDS if self._log is None else _LOG_SECONDS):
            self._spoke = time.monotonic()
            self.say(f"{self._name}: {self._about()}")

    def _about(self) -> str:
        """The progress in words: how much is done, how fast, how long it will take, what it costs.

        On a terminal as much of it as its width holds; what comes first matters most.
        """
        parts = [_amount(self._done, self._unit, self._total)]
        seconds = time.monotonic() - self._began
        if seconds <= 0:
            return parts[0]
        parts += filter(None, [self._rate(), self._left()])
        requests = self._sums.get("requests", 0)
        if requests:
            parts.append(f"{requests * 60 / seconds:,.0f} requests/min")
        elif tokens := self._sums.get("tokens", 0):
            parts.append(f"{tokens / seconds:,.0f} tokens/s")
            if busy := self._utilisation.summary(seconds):
                parts.append(busy)
        if retries := self._sums.get("retries", 0):
            parts.append(f"{retries:,.0f} retries")
        if requests and (failed := self._sums.get("failed", 0)):
            parts.append(f"{failed:,.0f} without a score")
        if "cost" in self._sums:
            parts.append(f"{self._sums['cost']:,.2f} {self._currency}")
        if self._screen.is_terminal:
            while len(parts) > 1 and len(", ".join(parts)) > self._screen.width - _BESIDE:
                parts.pop()
        return ", ".join(parts)

    def _rate(self) -> str:
        """``12.5 turns/s`` since the stage began; empty before anything is done."""
        if not self._done or self._unit == "bytes":
            return ""
        rate = self._done / (time.monotonic() - self._began)
        return f"{rate:,.0f} {self._unit}/s" if rate >= 100 else f"{rate:,.1f} {self._unit}/s"

    def _left(self) -> str:
        """``40 s left``, by the rate since the first of the work was done; empty where it is not known."""
        if self._moved is None or not self._total or self._done >= self._total:
            return ""
        since, done_then = self._moved
        done = self._done - done_then
        if done <= 0:
            return ""
        return f"{_duration((self._total - self._done) * (time.monotonic() - since) / done)} left"

    def did(self, work: object) -> None:
        """Note what a stage did in this run."""
        self._works.append(work)

    def work_of(self, kind: type[Work]) -> Work | None:
        """The last work of that kind that a stage did in this run; None where none did any."""
        return next((work for work in reversed(self._works) if isinstance(work, kind)), None)

    def say(self, line: str) -> None:
        """Print the line, above the bar if there is one; where there is a log, write it there."""
        if self._log is not None:
            self._log(printable(line))
            return
        if self.showing.is_quiet and not line.startswith(_GRAVE):
            return
        self._screen.print(Text(printable(line)), soft_wrap=not self._screen.is_terminal)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """In this context, a terminal shows what the command waits for."""
        if not self._screen.is_terminal or self.showing.is_quiet:
            yield
            return
        with self._screen.status(Text(text)):
            yield

    def show(self, table: RenderableType, plain: str | None = None) -> None:
        """Print results to standard output: a table, or ``plain``, if given, where that is no terminal.

        Nothing with ``--quiet``, nor with ``--json``, which prints what ``show_data`` is given.
        """
        self._end_bar()
        if self.showing.is_quiet or self.showing.as_json:
            return
        with writing_results():
            if plain is not None and not self._results.is_terminal:
                self._results.file.write(plain)
            else:
                self._results.print(table)

    def show_data(self, data: object) -> None:
        """Print the result to standard output as one JSON value, with ``--json``; else nothing."""
        if self.showing.as_json:
            written = msgspec.json.format(msgspec.json.encode(data), indent=2)
            with writing_results():
                self._results.file.write(written.decode() + "\n")

    def close(self) -> None:
        """Remove the bar."""
        self._end_bar()

    def _end_bar(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._bar = None

    def _line(self, text: str, right: str) -> None:
        if self._log is not None:
            self._log(printable(f"{text}  {right}"))
            return
        if self.showing.is_quiet:
            return
        width = min(self._screen.width, _NARROW) if self._screen.is_terminal else _NARROW
        gap = max(2, width - len(text) - len(right) - 1)
        self._screen.print(Text(printable(f"{text}{' ' * gap}{right}")), soft_wrap=True)


class HeldConsole(Console):
    """A console that holds back its lines and tables until ``release``. It shows progress bars at once."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Callable[[], None]] | None = []

    def say(self, line: str) -> None:
        """Hold the line back."""
        self._hold(partial(super().say, line))

    def show(self, table: RenderableType, plain: str | None = None) -> None:
        """Hold the table back."""
        self._hold(partial(super().show, table, plain))

    def show_data(self, data: object) -> None:
        """Hold the data back."""
        self._hold(partial(super().show_data, data))

    def _line(self, text: str, right: str) -> None:
        self._hold(partial(super()._line, text, right))

    def _hold(self, show: Callable[[], None]) -> None:
        if self._held is None:
            show()
        else:
            self._held.append(show)

    def release(self) -> None:
        """Show all that was held back, in order. From now on, show everything at once."""
        held, self._held = self._held or [], None
        self._end_bar()
        for show in held:
            show()


def _duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _amount(done: int, unit: str, total: int | None = None) -> str:
    """``12 of 40 turns``; bytes as ``1.2 of 4.0 MB``."""
    numbers = [number for number in (done, total) if number is not None]
    if unit == "bytes":
        scale, unit = (1e6, "MB") if max(numbers) >= 1e6 else (1e3, "kB")
        return f"{' of '.join(f'{number / scale:,.1f}' for number in numbers)} {unit}"
    return " of ".join([*(f"{number:,}" for number in numbers[:-1]), counted(numbers[-1], unit)])


_current: Console | None = None


@contextmanager
def opened(console: Console) -> Iterator[Console]:
    """In this context, ``current()`` returns this console."""
    global _current
    before, _current = _current, console
    try:
        yield console
    finally:
        console.close()
        _current = before


def is_of_a_command() -> bool:
    """Whether a command, and not a deployment, runs in this process. Never asks a server."""
    return _current is not None


def is_of_a_deployment() -> bool:
    """Whether this run is one of a deployment."""
    from prefect import runtime

    return not is_of_a_command() and runtime.deployment.id is not None


def current() -> Console:
    """The console of the running command, or a new one. That of a deployment's run writes to its log."""
    if _current is not None:
        return _current
    from prefect.logging import get_run_logger

    return Console(log=_by_level(get_run_logger())) if is_of_a_deployment() else Console()


def _by_level(log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> Callable[[str], None]:
    """Writes a line to the log, at the level that its first word names: ``warning:``, ``error:``, or none."""

    def write(line: str) -> None:
        level = {"warning": logging.WARNING, "error": logging.ERROR}.get(line.partition(":")[0], logging.INFO)
        log.log(level, "%s", line)

    return write
