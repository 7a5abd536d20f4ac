"""However a command ends: its exit code, and one line on standard error that says why."""

from __future__ import annotations

import sys
from collections.abc import Callable

from assay.core.errors import AssayError
from assay.core.text import printable
from assay.storage.private import private
from flows.command.signals import INTERRUPTED, TERMINATED, signalled, stopped_by, stopping_on_signals


def exit_code_of(work: Callable[[], int], *, goes_on: bool) -> int:
    """What ``work`` returns, or the exit code of what ended it.

    ``goes_on``: whether the same command would go on from where a signal stopped it.
    """
    try:
        with stopping_on_signals(), private():
            return work()
    except AssayError as error:
        _complain(f"error: {error}")
        return error.exit_code
    except OSError as error:
        _complain(f"error: {_described(error)}")
        return AssayError.exit_code
    except KeyboardInterrupt:
        _complain(stopped_by(INTERRUPTED, goes_on=goes_on))
        return INTERRUPTED
    except SystemExit as leaving:
        if leaving.code == TERMINATED:
            _complain(stopped_by(TERMINATED, goes_on=goes_on))
        return leaving.code if isinstance(leaving.code, int) else 0
    except (Exception, BaseExceptionGroup):
        code = signalled()
        if code is None:
            raise
        _complain(stopped_by(code, goes_on=goes_on))
        return code


def _described(error: OSError) -> str:
    """``path: what went wrong``, as far as the system's error has them."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename is not None else what


def _complain(text: str) -> None:
    """Print to standard error. Control characters in names from data are escaped."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)
