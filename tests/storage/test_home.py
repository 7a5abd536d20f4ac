"""What killed processes left in a folder goes, and is looked for once."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from assay.storage.home import sweep, written_whole


def _left(folder: Path, name: str) -> Path:
    """A temporary file of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    path = folder / f".{name}.{socket.gethostname()}-{ended.pid}.0.tmp"
    path.touch()
    return path


def _write(path: Path) -> None:
    with written_whole(path) as temporary:
        temporary.write_bytes(b"data")


def test_leftovers_are_looked_for_at_the_first_file_of_a_folder_and_not_at_every_file(tmp_path: Path) -> None:
    first = _left(tmp_path, "a")
    _write(tmp_path / "a")
    assert not first.exists()
    later = _left(tmp_path, "b")
    for name in ("a", "b"):
        _write(tmp_path / name)
    assert later.exists()
    # Each folder has its own first file.
    (tmp_path / "other").mkdir()
    elsewhere = _left(tmp_path / "other", "a")
    _write(tmp_path / "other" / "a")
    assert not elsewhere.exists()
    # A stage that begins to write looks whenever it begins.
    sweep(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b", "other"]
