"""A worker whose files were replaced since it loaded them is named as such, and its job is no riddle."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from distributed import Client
from job_doers import Noted
from patience import PATIENCE_SECONDS
from places import ROOT
from running_dask import RunningDask
from stages import Heard

from assay.core.errors import ClusterFault
from assay.workers.cluster import ClusterOptions
from assay.workers.of_run import RunWorkers
from assay.workers.same_code import code_here


def before_the_check(folder: Path) -> Path:
    """A folder with code that does jobs by another function than the run asks for."""
    shutil.copytree(ROOT / "assay", folder / "assay", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "assay" / "workers" / "dispatch.py"
    path.write_text(path.read_text().replace("do_if_same_code", "do_anything"))
    return folder


@pytest.mark.slow
def test_a_worker_that_loaded_older_files_ends_the_run_with_what_to_do(tmp_path: Path) -> None:
    notes, heard = tmp_path / "notes", Heard()
    notes.mkdir()
    theirs = before_the_check(tmp_path / "theirs")
    with ExitStack() as stack:
        running = RunningDask(tmp_path, stack)
        running.worker("old", theirs)
        with Client(running.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
            client.run(exec, "import assay.workers.dispatch")
            shutil.copytree(ROOT / "assay", theirs / "assay", dirs_exist_ok=True)
            # So it seems to have the run's code.
            assert [*client.run(code_here).values()] == [code_here()]
        with (
            RunWorkers(ClusterOptions(scheduler_address=running.address)) as workers,
            pytest.raises(ClusterFault) as refused,
        ):
            workers.do(
                [Noted(number, notes) for number in range(3)],
                stage="note",
                progress=heard,
                leave_if_unwanted=lambda: None,
                done=lambda _: None,
            )
    assert str(refused.value) == (
        "a Dask worker loaded Assay before its files were replaced by newer ones: start the workers anew; "
        "what is finished is kept, and the same command goes on from there"
    )
    assert heard.lines == []
    assert list(notes.iterdir()) == []
