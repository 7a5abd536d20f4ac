"""Faults of the disk, told as one line: which path, what is wrong with it, what to do."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from assay.core.errors import AssayError
from assay.storage.home import Artifact, Home, digest_of_content

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# polars 2.1 turns what the system said into text: "underlying IO error: No space left (os error 28)", or,
# where a page header or the footer met the end of the disk, "parquet: … Invalid thrift: transport error".
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
# A new database of Prefect takes half of it.
_ROOM_BYTES = 4 << 20
_UNNUMBERED = "thrift: transport error"


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn "no space left" met while writing below ``path`` into an AssayError that names it."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        what = _what_is_full(error)
        if what is None:
            raise
        raise AssayError(
            f"{path}: {what}. Make room, or choose another place; what was there before is untouched, and "
            "the same command goes on from what is finished."
        ) from error


def why_full(folder: Path) -> str | None:
    """The system's words for why no more can be written below ``folder``; None where a few megabytes can.

    For programs that die of it and cannot say so, because what they say would be written there too.
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
    """The system's words for a disk, quota or file size that is used up; None for any other error."""
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
    """Turn what polars makes of a file below ``path`` that is gone or damaged into an AssayError."""
    try:
        yield
    # A flipped bit makes polars panic, which is no Exception.
    except (FileNotFoundError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(path, (str(error) or type(error).__name__).splitlines()[0]) from error


def read_artifact(artifact: Artifact, home: Home, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of a stage's Parquet file. AssayError where it is gone or not what was written."""
    path = home.artifacts / artifact.path
    with damage_named(path):
        data = path.read_bytes()
        if digest_of_content(data) != artifact.digest:
            raise _damaged(path, "its digest is not that of what was written")
        return pl.read_parquet(data, columns=list(columns))


def _damaged(path: Path, why: str) -> AssayError:
    return AssayError(f"{path}: is gone or damaged ({why}). Run again: it is made anew.")
