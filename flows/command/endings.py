"""However a command ends: its exit code, and one line on standard error that says why."""

from __future__ import annotations

from collections.abc import Callable

from assay.core.errors import AssayError
from assay.core.text import printable
from assay.storage.private import private
from flows.command.signals import INTERRUPTED, ending_code, signalled, stopped_by, stopping_on_signals
from flows.command.streams import complain


def exit_code_of(work: Callable[[], int], *, goes_on: bool) -> int:
    """What ``work`` returns, or the exit code of what ended it. What it makes is for this user alone.

    ``goes_on``: whether the same command would go on from where a signal stopped it.
    """
    try:
        with stopping_on_signals(goes_on=goes_on), private():
            try:
                return work()
            except BaseException as error:  # noqa: BLE001  # what has no exit code is raised again
                return _reported(error, goes_on)
    except (KeyboardInterrupt, SystemExit) as stop:  # a signal between two lines of the context itself
        return _reported(stop, goes_on)


def _reported(error: BaseException, goes_on: bool) -> int:
    """The exit code, once a line has been printed. Raises what is a bug."""
    match error:
        case AssayError():
            _complain(f"error: {error}")
            return error.exit_code
        case OSError():
            _complain(f"error: {_described(error)}")
            return AssayError.exit_code
        case SystemExit() if ending_code(error) is None:
            if isinstance(error.code, str):
                _complain(error.code)
                return AssayError.exit_code
            return error.code or 0
        case KeyboardInterrupt():
            code: int | None = INTERRUPTED
        case SystemExit():
            code = ending_code(error)
        case _:
            code = signalled()
    if code is None:
        raise error
    _complain(stopped_by(code, goes_on=goes_on))
    return code


def _described(error: OSError) -> str:
    """``path: what went wrong``, as far as the system's error has them."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename is not None else what


def _complain(text: str) -> None:
    """Print to standard error. Control characters in names from data are escaped."""
    complain("\n".join(map(printable, text.split("\n"))))
