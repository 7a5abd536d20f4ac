"""A run's own folder among the temporary files, for what libraries put there; it goes with the run.

torch makes a ``torchinductor_USER`` when some of its modules are imported, Dask a ``dask-scratch-space`` for
the files of its workers. Left to themselves both stay, and are shared by all who use the machine.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

_TORCH = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def own_folder() -> Iterator[Path]:
    """Yield a private folder among the system's temporary files; those of killed runs are removed first."""
    mine = f"assay-run-{socket.gethostname()}-"
    _sweep(mine)
    folder = Path(tempfile.mkdtemp(prefix=f"{mine}{os.getpid()}-"))
    try:
        yield folder
    finally:
        # What a worker that was killed had open, and a network file system keeps, is left to the next sweep.
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(mine: str) -> None:
    """Remove folders of this user's processes on this machine that are no more."""
    for path in Path(tempfile.gettempdir()).glob(f"{glob.escape(mine)}*"):
        pid = path.name.removeprefix(mine).partition("-")[0]
        try:
            ours = not path.is_symlink() and path.stat().st_uid == os.geteuid()
        except FileNotFoundError:
            continue
        if ours and pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def torch_environment(folder: Path) -> Mapping[str, str]:
    """What a process that imports torch is to be started with, so that its files go into the folder.

    Nothing, where the user named a place for them.
    """
    return {} if _TORCH in os.environ else {_TORCH: str(folder / "torchinductor")}


@contextmanager
def torch_in_own_folder() -> Iterator[None]:
    """Within, what torch writes in this process goes into a folder of its own, unless the user named one."""
    if _TORCH in os.environ:
        yield
        return
    with own_folder() as folder:
        os.environ |= torch_environment(folder)
        try:
            yield
        finally:
            os.environ.pop(_TORCH, None)
