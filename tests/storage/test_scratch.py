"""What libraries leave among the temporary files while a run works goes with the run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from distributed import Worker

from assay.storage.scratch import own_folder, torch_in_own_folder
from assay.workers import cluster
from assay.workers.cluster import ClusterOptions, connected


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of temporary files, for this process and those that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    return folder


def places_of_a_worker(dask_worker: Worker) -> tuple[str, str]:
    """Where Dask and torch put a worker's files."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return str(dask_worker.local_directory), cache_dir()


@pytest.mark.slow
def test_what_workers_put_among_the_temporary_files_goes_with_the_run(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "visible_devices", list)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with connected(ClusterOptions(workers=1)) as client:
        (own,) = temporary.iterdir()
        (places,) = client.run(places_of_a_worker).values()
        assert all(Path(place).is_relative_to(own) for place in places)
        assert own.stat().st_mode & 0o777 == 0o700
        assert list(temporary.iterdir()) == [own]
    assert list(temporary.iterdir()) == []
    assert list((tmp_path / "here").iterdir()) == []


def test_what_torch_leaves_in_this_process_goes_with_it(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch_in_own_folder():
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        assert Path(cache_dir()).parent in temporary.iterdir()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    assert list(temporary.iterdir()) == []
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/the/users/own")
    with torch_in_own_folder():
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/the/users/own"


def test_the_folder_of_a_killed_run_goes_with_the_next(temporary: Path) -> None:
    code = (
        "import os\nfrom assay.storage.scratch import own_folder\n"
        "with own_folder() as folder:\n    (folder / 'x').touch()\n"
        "    print(folder, flush=True)\n    os._exit(9)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Path(ran.stdout.strip())
    name = f"assay-run-{socket.gethostname()}-"
    others = {
        temporary / f"{name}{os.getpid()}-alive",
        temporary / f"assay-run-another.host-{ran.returncode}-x",
        temporary / f"{name}no-number",
    }
    for other in others:
        other.mkdir()
    link = temporary / f"{name}999999-link"
    link.symlink_to(others.pop())
    assert list(left.iterdir())
    with own_folder() as folder:
        assert set(temporary.iterdir()) >= {folder, link, *others}
    assert not left.exists()
    assert link.is_symlink()


def test_a_machine_leaves_the_folders_of_one_whose_name_begins_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the other name looks like a pid of which no process is there."""
    monkeypatch.setattr("socket.gethostname", lambda: "node-999999999")
    with own_folder(tmp_path) as theirs:
        monkeypatch.setattr("socket.gethostname", lambda: "node")
        with own_folder(tmp_path):
            assert theirs.exists()
    left = tmp_path / "assay-run-node-999999999-abc_1234"
    left.mkdir()
    with own_folder(tmp_path):
        assert not left.exists()
