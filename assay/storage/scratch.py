"""A folder for a run's temporary files, which is removed when the run ends.

torch makes a folder ``torchinductor_USER`` when some of its modules are imported, Dask a
``dask-scratch-space`` for its workers. By default both stay in the system's temporary folder for ever.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from assay.storage.processes import has_ended

#: Where workers leave what a run takes from them, below the artifacts' folder or address.
HANDOVER = "export"

_TORCH = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def own_folder(within: Path | None = None) -> Iterator[Path]:
    """Yield a private temporary folder; first remove the folders that killed runs left.

    It lies ``within`` that folder, or where the system has its temporary files.
    """
    place = Path(tempfile.gettempdir()) if within is None else within
    sweep_folders(place)
    folder = Path(tempfile.mkdtemp(prefix=f"{_beginning()}{os.getpid()}-", dir=place))
    try:
        yield folder
    finally:
        # A network file system keeps files that a killed worker had open. The next sweep removes them.
        shutil.rmtree(folder, ignore_errors=True)


def _beginning() -> str:
    """How the names of this machine's folders begin."""
    return f"assay-run-{socket.gethostname()}-"


def sweep_folders(place: Path) -> None:
    """Remove the folders of this user in there whose processes on this machine have ended."""
    for path in place.glob(f"{glob.escape(_beginning())}*"):
        try:
            ours = not path.is_symlink() and path.stat().st_uid == os.geteuid()
        except FileNotFoundError:
            continue
        if ours and is_left(path.name, _beginning()):
            shutil.rmtree(path, ignore_errors=True)


def is_left(name: str, beginning: str) -> bool:
    """Whether a killed process of this machine left the folder of that name: ``BEGINNING``, pid, ``-``, text.

    A machine that is called ``node`` has nothing to do with the folders of a machine ``node-2``.
    """
    numbered = re.fullmatch(r"(\d+)-[^-]+", name.removeprefix(beginning))
    return name.startswith(beginning) and numbered is not None and has_ended(int(numbered[1]))


def torch_environment(folder: Path) -> Mapping[str, str]:
    """Environment variables that make torch in a new process write its files into the folder.

    Empty where the user chose a place for them.
    """
    return {} if _TORCH in os.environ else {_TORCH: str(folder / "torchinductor")}


@contextmanager
def torch_in_own_folder() -> Iterator[None]:
    """Inside this context, torch in this process writes to a temporary folder, unless the user chose one."""
    if _TORCH in os.environ:
        yield
        return
    with own_folder() as folder:
        os.environ |= torch_environment(folder)
        try:
            yield
        finally:
            os.environ.pop(_TORCH, None)
