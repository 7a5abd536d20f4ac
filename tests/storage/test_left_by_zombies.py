"""What a killed process left is removed, though nobody has waited for the process yet."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from running_dask import until

from assay.storage.home import sweep
from assay.storage.scratch import sweep_folders


@pytest.fixture
def zombie() -> Iterator[int]:
    """The number of a process that has ended, and that its parent has not waited for."""
    process = subprocess.Popen(["true"])
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, "a zombie")
    yield process.pid
    process.wait()


def test_temporary_files_and_folders_of_a_zombie_are_removed(zombie: int, tmp_path: Path) -> None:
    for process_id in (zombie, os.getpid()):
        (tmp_path / f".a.{socket.gethostname()}-{process_id}.0.tmp").touch()
        (tmp_path / f"assay-run-{socket.gethostname()}-{process_id}-x").mkdir()
    sweep(tmp_path)
    sweep_folders(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        f".a.{socket.gethostname()}-{os.getpid()}.0.tmp",
        f"assay-run-{socket.gethostname()}-{os.getpid()}-x",
    }
