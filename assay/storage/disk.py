"""Faults of the disk, each as one line: which path, what is wrong with it, what to do."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from assay.core.digests import digest_of_content
from assay.core.errors import AssayError
from assay.storage.home import Artifact, Home

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# polars 2.1 gives the system's error as text: "underlying IO error: No space left (os error 28)". Where the
# disk is full while it writes a page header or the footer: "parquet: … Invalid thrift: transport error".
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
# Room that must be left. A new database of Prefect takes half of it.
_ROOM_BYTES = 4 << 20
_UNNUMBERED = "thrift: transport error"


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn "no space left" below ``path`` into an AssayError that names the path."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        what = _what_is_full(error)
        if what is None:
            raise
        raise AssayError(
            f"{path}: {what}. Make room, or choose another place. What was there before is untouched, and "
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
def damage_named(path: Path) -> Iterator[None]:
    """Turn the error that polars raises for a lost or damaged file below ``path`` into an AssayError."""
    try:
        yield
    # A flipped bit can make polars panic. PanicException is no Exception.
    except (FileNotFoundError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(path, (str(error) or type(error).__name__).splitlines()[0]) from error


def read_artifact(artifact: Artifact, home: Home, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of a stage's Parquet file. AssayError where the file is gone or altered."""
    with damage_named(home.artifacts / artifact.path):
        return pl.read_parquet(read_bytes(artifact, home), columns=list(columns))


def read_bytes(artifact: Artifact, home: Home) -> bytes:
    """The content of a stage's file. AssayError where the file is gone or altered."""
    path = home.artifacts / artifact.path
    with damage_named(path):
        data = path.read_bytes()
    if digest_of_content(data) != artifact.digest:
        raise _damaged(path, "its digest does not match its content")
    return data


def _damaged(path: Path, why: str) -> AssayError:
    return AssayError(f"{path}: is gone or damaged ({why}). Run again: it is made anew.")
