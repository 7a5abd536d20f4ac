"""Files and folders that only this user may read, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = 0o700
FILE = 0o600

_FOR_OTHERS = 0o077

#: The umasks that ``private`` replaced, outermost first.
_replaced_umasks: list[int] = []


@contextmanager
def private() -> Iterator[None]:
    """Inside this context, only the user may read what this process and its children write.

    It is for libraries that write below ``ASSAY_HOME`` and set no rights: Prefect, SQLite, Dask. Assay
    itself sets the rights of each file, because the operator chooses the umask of a Dask worker.
    """
    _replaced_umasks.append(os.umask(_FOR_OTHERS))
    try:
        yield
    finally:
        os.umask(_replaced_umasks.pop())


def usual_file_mode() -> int:
    """The rights of a new file that is not private, such as a result: those that the user's umask leaves."""
    if _replaced_umasks:
        return 0o666 & ~_replaced_umasks[0]
    umask = os.umask(_FOR_OTHERS)
    os.umask(umask)
    return 0o666 & ~umask


def opener(name: str, flags: int) -> int:
    """A descriptor for ``open(…, opener=opener)``: only the user may read a file that it makes."""
    return os.open(name, flags, FILE)


def make_private(folder: Path) -> None:
    """Make the folder and its missing parents for this user alone. An existing folder keeps its rights."""
    if not folder.parent.exists():
        make_private(folder.parent)
    # With parents=True only the last folder would get the mode.
    folder.mkdir(mode=FOLDER, exist_ok=True)


def close_to_others(path: Path) -> None:
    """Take other users' rights from a file or folder of this user. Skip links and missing paths."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & _FOR_OTHERS:
        path.chmod(stat.S_IMODE(found.st_mode) & FOLDER)
