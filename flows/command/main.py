"""``assay COMMAND …`` and ``python -m flows.COMMAND``: the command's name → an exit code.

This module imports next to nothing: Dask's workers import a run's main module again, help should come at
once, and Ctrl-C shows Python's traceback until ``main`` or ``run_module`` begins.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import NoReturn

_USAGE = """\
usage: assay COMMAND [option …]

commands:
  curate    rate every answer of chat data, keep what passes, write training files
  verify    check that a reward model gives the scores that it should
  evaluate  measure how well a reward model ranks answers
  models    list the reward models that Assay knows by name
  formats   list the input formats
  exports   list the training files that curate can write

assay COMMAND --help lists a command's options; assay --version shows the version.
"""


def _curate(arguments: Sequence[str], program: str) -> NoReturn:
    # Without garbage collection: to search what is imported takes a sixth of the start, and it all stays in
    # use. The run turns garbage collection on again.
    gc.disable()
    from flows.command.curate import COMMAND
    from flows.command.launch import main

    main(COMMAND, arguments, program=program)


def _verify(arguments: Sequence[str], program: str) -> int:
    from flows.command.verify import command

    return command(arguments, program=program)


def _evaluate(arguments: Sequence[str], program: str) -> NoReturn:
    # As for curate.
    gc.disable()
    from flows.command.evaluate import COMMAND
    from flows.command.launch import main

    main(COMMAND, arguments, program=program)


def _models(arguments: Sequence[str], program: str) -> int:
    from flows.command.lists import models

    return models(arguments, program)


def _formats(arguments: Sequence[str], program: str) -> int:
    from flows.command.lists import formats

    return formats(arguments, program)


def _exports(arguments: Sequence[str], program: str) -> int:
    from flows.command.lists import exports

    return exports(arguments, program)


COMMANDS: dict[str, Callable[[Sequence[str], str], int]] = {
    "curate": _curate,
    "verify": _verify,
    "evaluate": _evaluate,
    "models": _models,
    "formats": _formats,
    "exports": _exports,
}


def main() -> NoReturn:
    """Carry out ``assay COMMAND …`` and end the process with the command's exit code."""
    _end_as(lambda: run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The exit code of ``assay`` with these arguments."""
    if not arguments or arguments[0] in ("--help", "-h"):
        from flows.command.streams import writing_results

        with writing_results():
            print(_USAGE, end="")
        return 0
    name, *rest = arguments
    if name == "--version":
        from assay import __version__
        from flows.command.streams import writing_results

        with writing_results():
            print(__version__)
        return 0
    if name not in COMMANDS:
        from assay.core.text import did_you_mean

        meant = did_you_mean(name, COMMANDS) or f" (commands: {', '.join(COMMANDS)})"
        print(f"error: unknown command {name!r}{meant}", file=sys.stderr)
        return 2
    return COMMANDS[name](rest, f"assay {name}")


def run_module(name: str) -> NoReturn:
    """Carry out ``python -m flows.NAME`` and end the process with its exit code."""
    _end_as(lambda: COMMANDS[name](sys.argv[1:], f"python -m flows.{name}"))


def _end_as(work: Callable[[], int]) -> NoReturn:
    """End the process with the exit code that ``work`` returns or leaves with."""
    _stop_at_signals()
    from flows.command.streams import open_closed_streams, writing_results

    open_closed_streams()
    code: int | str | None
    try:
        code = work()
    except SystemExit as leaving:
        code = leaving.code
    with writing_results():
        pass  # Python may still hold what was printed
    sys.exit(code)


def _stop_at_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end the process with a line, until a command listens to them itself.

    By default Ctrl-C raises an exception. A library that is being imported may lose it, or raise another one.
    """
    import signal

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        try:
            # Its reader may be gone, or may not read: do not wait for it.
            os.set_blocking(2, False)
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            os.write(2, f"stopped by {name}\n".encode())
        finally:
            os._exit(128 + number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, stop)
