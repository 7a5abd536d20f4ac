"""Who may read what Assay makes: this user alone, whatever the umask and the folder's own rights."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = 0o700
FILE = 0o600

_FOR_OTHERS = 0o077

#: The umasks that ``private`` put away, outermost first.
_put_away: list[int] = []


@contextmanager
def private() -> Iterator[None]:
    """Within, all that this process makes is for its user alone, and so is all that its children make.

    This is for libraries that write below ``ASSAY_HOME`` and ask for no rights: Prefect, SQLite, Dask.
    What Assay writes itself names its rights, because a Dask worker's umask is its operator's.
    """
    _put_away.append(os.umask(_FOR_OTHERS))
    try:
        yield
    finally:
        os.umask(_put_away.pop())


def usual_file_mode() -> int:
    """The rights of a new file that is not kept private, such as a result: what the user's umask leaves."""
    if _put_away:
        return 0o666 & ~_put_away[0]
    umask = os.umask(_FOR_OTHERS)
    os.umask(umask)
    return 0o666 & ~umask


def opener(name: str, flags: int) -> int:
    """A descriptor for ``open(…, opener=opener)``: a file that this makes is for its user alone."""
    return os.open(name, flags, FILE)


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, all for this user alone.

    A folder that is there keeps its rights.
    """
    if not folder.parent.exists():
        make_private(folder.parent)
    # With parents=True the mode would be the last folder's only.
    folder.mkdir(mode=FOLDER, exist_ok=True)


def close_to_others(path: Path) -> None:
    """Take the rights of others from a file or folder of this user. A link, and what is not there, stay."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & _FOR_OTHERS:
        path.chmod(stat.S_IMODE(found.st_mode) & FOLDER)
