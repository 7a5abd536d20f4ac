"""Faults of the disk, each as one line: which path, what is wrong with it, what to do."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from assay.core.errors import AssayError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# polars 2.1 gives the system's error as text: "underlying IO error: No space left (os error 28)". Where the
# disk is full while it writes a page header or the footer: "parquet: … Invalid thrift: transport error".
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
# Room that must be left. A new database of Prefect takes half of it.
_ROOM_BYTES = 4 << 20
#: Why a file of a stage is damaged.
ALTERED = "its digest does not match its content"

_UNNUMBERED = "thrift: transport error"


@contextmanager
def full_disk_named(place: Path | str) -> Iterator[None]:
    """Turn "no space left" below ``place`` into an AssayError that names it."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        what = _what_is_full(error)
        if what is None:
            raise
        raise AssayError(
            f"{place}: {what}. Make room, or choose another place. What was there before is untouched, and "
            "the same command goes on from what is finished."
        ) from error


def why_full(folder: Path) -> str | None:
    """The system's reason why nothing more can be written below ``folder``; None where a few megabytes can.

    For programs that a full disk ends, and that cannot report it because their log is on the same disk.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return _what_is_full(error)
    return None


def _what_is_full(error: OSError | pl.exceptions.ComputeError) -> str | None:
    """The system's reason if the disk, a quota or the largest file size is reached; None for other errors."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _SYSTEM_ERROR.search(str(error))):
        number = int(found[1])
    if number in _FULL:
        return os.strerror(number)
    if number is None and _UNNUMBERED in str(error):
        return "cannot be written, probably because the disk is full"
    return None


@contextmanager
def damage_named(place: Path | str) -> Iterator[None]:
    """Turn the error that polars raises for a lost or damaged file below ``place`` into an AssayError."""
    try:
        yield
    # A flipped bit can make polars panic. PanicException is no Exception.
    except (FileNotFoundError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise damaged(place, (str(error) or type(error).__name__).splitlines()[0]) from error


def damaged(place: Path | str, why: str) -> AssayError:
    """The fault of a file that an earlier stage wrote. ``place``: its path or address."""
    return AssayError(f"{place}: is gone or damaged ({why}). Run again: it is made anew.")
