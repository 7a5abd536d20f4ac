"""From a command line to an exit code. One sentence reports what went wrong, and no process stays behind.

Exit codes: 0 finished; 1 a fault, an input that is cut short or damaged, or no usable record; 2 the user's
mistake; 75 stopped, and the same command goes on; 129 SIGHUP; 130 Ctrl-C; 143 SIGTERM.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import multiprocessing.util
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, NoReturn, Protocol, TypeVar

from pydantic import BaseModel

from assay.config.settings import Settings
from assay.core.errors import AssayError, ServerFault, UserMistake
from assay.storage.home import Home
from flows.command.console import Console, HeldConsole, Showing, opened
from flows.command.endings import exit_code_of
from flows.command.options import parse
from flows.command.signals import GOES_ON
from flows.server.connection import (
    Connection,
    connected,
    deliver_reports,
    may_name_a_server,
    server_of_the_run,
)

Options = TypeVar("Options", bound=BaseModel)
Checked = TypeVar("Checked")

#: How long a command waits until the embedded server has the last states of the run.
_REPORT_SECONDS = 5.0
_REPORT_SECONDS_WHEN_STOPPED = 1.5


class Ended(Protocol):
    """The part of a flow's result that decides the exit code."""

    @property
    def complete(self) -> bool:
        """False where an input is cut short or damaged."""

    @property
    def unusable(self) -> str | None:
        """Why nothing could be used; None where something could."""


class Elsewhere(NamedTuple):
    """A deployment, and the parameters of the run that it is asked for."""

    flow_name: str
    deployment: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command(Generic[Options, Checked]):
    """The parts of a command ``assay NAME``."""

    summary: str
    examples: str
    options: type[Options]
    check: Callable[[Options, Settings], Checked]
    """Checks the options before Prefect is imported, and returns what it found. Raises UserMistake."""
    flow: Callable[[], Callable[[Options], Ended]]
    """Imports Prefect and returns the flow."""
    elsewhere: Callable[[Options], Elsewhere | None] = lambda options: None
    """The deployment that does the run, where the options name one."""
    showing: Callable[[Options], Showing] = lambda options: Showing()
    """How much of it a person wants to see."""
    rerun: Callable[[Options, Checked, HeldConsole], Ended | None] = lambda options, checked, console: None
    """Does a run without Prefect if every stage's result is kept, and returns its result; else None."""


def main(command: Command[Any, Any], arguments: Sequence[str], *, program: str) -> NoReturn:
    """Carry out the command, and end the process with its exit code."""
    has_reported = threading.Event()
    code = launch(command, arguments, program=program, on_reported=has_reported.set)
    if not has_reported.is_set():
        sys.exit(code)
    # A normal exit takes Python half a second, and Prefect minutes where it cannot reach its server.
    from assay.rewards.templates import PROCESS

    PROCESS.close()
    # Workers that were starting are left. Python warns of their semaphores if these are not removed, and a
    # worker that finds none shows a traceback.
    for worker in multiprocessing.active_children():
        with suppress(ValueError):  # Dask has closed it meanwhile
            worker.kill()
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            stream.flush()
    os._exit(code)


def launch(
    command: Command[Options, Checked],
    arguments: Sequence[str],
    *,
    program: str = "assay",
    on_reported: Callable[[], object] = lambda: None,
) -> int:
    """Carry out the command and return its exit code. Whatever ends it, no process stays behind.

    Calls ``on_reported`` once this process has nothing more to send to a server: there was nothing to send,
    the server has all of it, or the server is gone.
    """
    return exit_code_of(lambda: _carried_out(command, arguments, program, on_reported), goes_on=True)


def _carried_out(
    command: Command[Options, Checked],
    arguments: Sequence[str],
    program: str,
    on_reported: Callable[[], object],
) -> int:
    options = parse(
        command.options,
        arguments,
        program=program,
        summary=command.summary,
        examples=command.examples,
    )
    settings = Settings.read()
    if elsewhere := command.elsewhere(options):
        from flows.server.remote_runs import run_there

        _collect_garbage()
        console = Console()
        console.showing = command.showing(options)
        if console.showing.as_json:
            raise UserMistake(
                "--json: the manifest stays where the deployment's run works; leave out the one or the other"
            )
        return run_there(*elsewhere, settings, console.say)
    checked = command.check(options, settings)
    code = _rerun(command, options, checked)
    if code is not None:
        on_reported()
        return code
    return _run(command, options, settings, on_reported)


def _rerun(command: Command[Options, Checked], options: Options, checked: Checked) -> int | None:
    """The exit code of a run with nothing to do. None if it has work, or may have a server to report to."""
    if may_name_a_server():
        return None
    console = HeldConsole()
    console.showing = command.showing(options)
    _collect_garbage()
    try:
        ended = command.rerun(options, checked, console)
    finally:
        console.close()
    return None if ended is None else _exit_code(ended)


def _exit_code(ended: Ended) -> int:
    return 0 if ended.complete and ended.unusable is None else AssayError.exit_code


def _run(
    command: Command[Options, Checked],
    options: Options,
    settings: Settings,
    on_reported: Callable[[], object],
) -> int:
    with opened(Console()) as console, ExitStack() as stack:
        console.showing = command.showing(options)
        home = settings.opened_home()
        embedded = stack.enter_context(server_of_the_run(home))
        with console.waiting("connecting to a Prefect server"):
            # Import the flow while the server starts.
            flow = command.flow()
            connection = stack.enter_context(connected(embedded, settings, console.say))
        import httpx
        from prefect.exceptions import PrefectException

        # Silence these loggers: where a run is stopped or its server is lost, the command reports it in one
        # line. Without raiseExceptions, Prefect's log handler writes nothing to standard error either.
        logging.raiseExceptions = False
        for noisy in ("distributed", "asyncio", "prefect.events", "httpx"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        patience = _REPORT_SECONDS
        _collect_garbage()
        try:
            outcome = flow(options)
        except (KeyboardInterrupt, SystemExit):
            patience = _REPORT_SECONDS_WHEN_STOPPED
            raise
        except (httpx.HTTPError, PrefectException) as error:
            on_reported()
            if console.outcome is None:
                raise _what_ended_the_run(connection, error, home) from error
            console.say(
                f"warning: the Prefect server at {connection.api_url} does not answer any more, so it does "
                "not know how the run ended; the results are whole."
            )
            outcome = console.outcome
        finally:
            console.close()
            if connection.embedded and console.flow_run_id is not None:
                deliver_reports(console.flow_run_id, patience)
                on_reported()
        return _exit_code(outcome)


def _collect_garbage() -> None:
    """Turn garbage collection on for objects that are made from now on. What was imported stays in use."""
    gc.freeze()
    gc.enable()


def _what_ended_the_run(connection: Connection, error: BaseException, home: Home) -> AssayError:
    """The run's own error if it had one before Prefect's server failed, else a ServerFault."""
    before = error.__context__
    while before is not None:
        if isinstance(before, AssayError):
            return before
        before = before.__context__
    # Not on import: it imports polars.
    from assay.storage.disk import why_full

    if connection.embedded and (why := why_full(home.prefect)):
        return ServerFault(
            f"{home.prefect}: {why}, so the embedded Prefect server failed. Make room, or set ASSAY_HOME to "
            f"a folder on another disk. {GOES_ON}"
        )
    what = str(error).split("\n")[0] or type(error).__name__
    return ServerFault(f"the Prefect server at {connection.api_url} failed ({what}). {GOES_ON}")
