"""Workers of a scheduler that have other code than the run are named, and get no job."""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from distributed import Client
from job_doers import Noted
from patience import PATIENCE_SECONDS
from places import ROOT
from running_dask import RunningDask, until
from stages import Heard

from assay.core.errors import ClusterFault
from assay.workers import dispatch as dispatching
from assay.workers.cluster import ClusterOptions, connected
from assay.workers.dispatch import dispatch
from assay.workers.fit_workers import FitWorkers
from assay.workers.of_run import RunWorkers
from assay.workers.same_code import NoWorkerFits, check_workers, code_here, digest_of_sources


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningDask]:
    with ExitStack() as stack:
        yield RunningDask(tmp_path, stack)


def other_code(folder: Path) -> Path:
    """A folder with Assay's code, with one line added."""
    shutil.copytree(ROOT / "assay", folder / "assay", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "assay" / "read" / "convert.py"
    path.write_text(path.read_text() + "\nANOTHER = True\n")
    return folder


def code_before_the_check(folder: Path) -> Path:
    """A folder with an Assay that cannot report its code, like versions before there was the check."""
    other_code(folder)
    (folder / "assay" / "workers" / "same_code.py").unlink()
    path = folder / "assay" / "workers" / "dispatch.py"
    path.write_text(path.read_text().replace("do_if_same_code", "do_anything"))
    return folder


def jobs(folder: Path, count: int = 12) -> list[Noted]:
    folder.mkdir(exist_ok=True)
    return [Noted(number, folder) for number in range(count)]


def who(folder: Path) -> set[int]:
    """The processes that did a job."""
    return {int(path.name.partition("-")[2]) for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "has"),
    [
        (other_code, "has Assay 0.1.0 (code "),
        (code_before_the_check, "has no Assay, or a version too old to report its code"),
    ],
    ids=["other code", "older than the check"],
)
def test_a_worker_with_other_code_is_named_and_gets_no_job_whenever_it_joins(
    theirs: Callable[[Path], Path], has: str, running: RunningDask, tmp_path: Path
) -> None:
    code = theirs(tmp_path / "theirs")
    good = running.worker("good")
    early = running.worker("early", code)
    heard = Heard()
    with ExitStack() as stack:
        # Wait until both have connected, so that the run sees both when it connects.
        with Client(running.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE_SECONDS)
        options = ClusterOptions(scheduler_address=running.address)
        client = stack.enter_context(connected(options, heard))
        (line,) = heard.lines
        assert line.startswith("1 Dask worker with other code than this run gets no work: tcp://127.0.0.1:")
        assert has in line
        assert line.endswith(
            f"; this run has {code_here()}. Install the same versions there, and restart the workers"
        )
        late: list[subprocess.Popen[bytes]] = []

        def joins() -> None:
            """A third worker joins while jobs are done."""
            if not late and who(tmp_path / "notes"):
                late.append(running.worker("late", code))
                client.wait_for_workers(3, timeout=PATIENCE_SECONDS)

        done: list[int] = []
        dispatch(
            client,
            jobs(tmp_path / "notes", 40),
            stage="note",
            done=done.append,
            leave_if_unwanted=joins,
            progress=heard,
        )
    assert who(tmp_path / "notes") == set(done) == {good.pid}
    assert len(done) == 40
    assert early.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("theirs", [other_code, code_before_the_check])
def test_a_worker_that_joins_later_sends_its_first_job_back(
    theirs: Callable[[Path], Path], running: RunningDask, tmp_path: Path
) -> None:
    """The run has not asked this worker for its code, so it may send it a job like any other."""
    good = running.worker("good")
    heard = Heard()
    with connected(ClusterOptions(scheduler_address=running.address), heard) as client:
        assert heard.lines == []
        running.worker("late", theirs(tmp_path / "theirs"))
        client.wait_for_workers(2, timeout=PATIENCE_SECONDS)
        done: list[int] = []
        dispatch(
            client,
            jobs(tmp_path / "notes", 40),
            stage="note",
            done=done.append,
            leave_if_unwanted=lambda: None,
            progress=heard,
        )
    assert (len(done), set(done), who(tmp_path / "notes")) == (40, {good.pid}, {good.pid})
    (line,) = heard.lines
    assert line.startswith("1 Dask worker with other code than this run gets no work: tcp://127.0.0.1:")


@pytest.mark.slow
def test_a_worker_whose_files_were_replaced_since_it_loaded_them_does_no_job(
    running: RunningDask, tmp_path: Path
) -> None:
    """It loaded code from before the check. From the new files it would answer that it has the run's code."""
    theirs = code_before_the_check(tmp_path / "theirs")
    (theirs / "assay" / "workers" / "dispatch.py").write_text("")
    running.worker("old", theirs)
    with Client(running.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
        client.run(importlib.import_module, "assay.workers.dispatch")
    shutil.copytree(ROOT / "assay", theirs / "assay", dirs_exist_ok=True)
    with (
        connected(ClusterOptions(scheduler_address=running.address), Heard()) as client,
        pytest.raises(ClusterFault, match=r"^a Dask worker loaded Assay before its files were replaced"),
    ):
        dispatch(
            client,
            jobs(tmp_path / "notes", 4),
            stage="note",
            done=lambda _: None,
            leave_if_unwanted=lambda: None,
        )
    assert who(tmp_path / "notes") == set()


@pytest.mark.slow
def test_a_run_ends_within_seconds_where_no_worker_has_its_code(running: RunningDask, tmp_path: Path) -> None:
    theirs = other_code(tmp_path / "theirs")
    running.worker("one", theirs)
    heard = Heard()
    with (
        RunWorkers(ClusterOptions(scheduler_address=running.address)) as workers,
        pytest.raises(NoWorkerFits, match=r"^1 Dask worker with other code than this run gets no work: tcp"),
    ):
        workers.do(
            jobs(tmp_path / "notes"),
            stage="note",
            progress=heard,
            leave_if_unwanted=lambda: None,
            done=lambda _: None,
        )
    assert who(tmp_path / "notes") == set()


@pytest.mark.faults
@pytest.mark.parametrize("with_results", [False, True], ids=["at work", "with results nobody has read"])
def test_jobs_of_the_last_fit_worker_go_to_the_one_that_replaces_it(
    running: RunningDask, tmp_path: Path, with_results: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a worker is unfit, jobs name the fit ones. If those die, Dask alone would wait forever."""
    monkeypatch.setattr(dispatching, "_RESULT_SECONDS", 2.0)
    unfit = running.worker("unfit", other_code(tmp_path / "theirs"))
    good = running.worker("good")
    heard, done = Heard(), list[int]()
    replaced: list[subprocess.Popen[bytes]] = []
    with Client(running.address, set_as_default=False) as asking:
        asking.wait_for_workers(2, timeout=PATIENCE_SECONDS)
    with connected(ClusterOptions(scheduler_address=running.address), heard) as client:

        def replace() -> None:
            if not replaced and len(done) >= 3:
                good.kill()
                good.wait()
                replaced.append(running.worker("another"))

        def take(result: int) -> None:
            done.append(result)
            if with_results and len(done) == 3:
                until(lambda: not any(client.processing().values()), "all that is handed out is done")
                replace()

        dispatch(
            client,
            jobs(tmp_path / "notes", 100),
            stage="note",
            done=take,
            leave_if_unwanted=(lambda: None) if with_results else replace,
            progress=heard,
        )
    assert len(done) == 100
    assert who(tmp_path / "notes") == {good.pid, replaced[0].pid}
    assert unfit.poll() is None
    assert len(heard.lines) == 1


@pytest.mark.slow
def test_a_fit_worker_that_starts_a_little_later_is_waited_for(running: RunningDask, tmp_path: Path) -> None:
    running.worker("unfit", other_code(tmp_path / "theirs"))
    with Client(running.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
        running.worker("good")
        line = check_workers(client, patience_seconds=PATIENCE_SECONDS)
        assert line.startswith("1 Dask worker with other code than this run gets no work")
        assert client.scheduler_info(n_workers=0)["n_workers"] == 2


@pytest.mark.slow
def test_a_worker_that_is_started_anew_at_its_old_address_is_fit_again(
    running: RunningDask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.workers.fit_workers._ASK_UNFIT_SECONDS", 0.5)
    good, other, port = fit_and_unfit(running, tmp_path)
    heard = Heard()
    with connected(ClusterOptions(scheduler_address=running.address), heard) as client:
        assert [str(port) in line for line in heard.lines] == [True]
        for worker in (other, good):
            worker.terminate()
            worker.wait()
        anew = running.worker("anew", port=port)
        done: list[int] = []
        dispatch(
            client,
            jobs(tmp_path / "notes", 4),
            stage="note",
            done=done.append,
            leave_if_unwanted=lambda: None,
            progress=heard,
        )
    assert done == [anew.pid] * 4


@pytest.mark.slow
def test_a_job_whose_workers_are_gone_is_noticed_though_no_worker_is_unfit_any_more(
    running: RunningDask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.workers.fit_workers._ASK_UNFIT_SECONDS", 0.0)
    good, other, port = fit_and_unfit(running, tmp_path)
    heard = Heard()
    with connected(ClusterOptions(scheduler_address=running.address), heard) as client:
        workers = FitWorkers(client, heard)
        workers.count_now(some_are_named=False)
        named = workers.named
        assert named is not None
        assert len(named) == 1
        for worker in (other, good):
            worker.terminate()
            worker.wait()
        running.worker("anew", port=port)
        until(lambda: not unfit_again(workers), "the worker that was started anew is fit")
        assert workers.named is None
        assert workers.count == 1
        assert workers.are_gone(named)
        assert not workers.are_gone([f"tcp://127.0.0.1:{port}"])
        assert not workers.are_gone(None)


@pytest.mark.slow
def test_jobs_whose_workers_are_gone_are_done_though_no_worker_is_unfit_any_more(
    running: RunningDask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask would wait for the worker that jobs name. The other one is fit by the time that it is gone."""
    monkeypatch.setattr("assay.workers.fit_workers._ASK_UNFIT_SECONDS", 0.0)
    good, other, port = fit_and_unfit(running, tmp_path)
    done: list[int] = []
    anew: list[subprocess.Popen[bytes]] = []
    began = time.monotonic()

    def replace() -> None:
        assert time.monotonic() - began < PATIENCE_SECONDS, "jobs wait for a worker that is gone"
        if done and not anew:
            for worker in (good, other):
                worker.kill()
                worker.wait()
            anew.append(running.worker("anew", port=port))

    with connected(ClusterOptions(scheduler_address=running.address), Heard()) as client:
        dispatch(
            client,
            jobs(tmp_path / "notes", 100),
            stage="note",
            done=done.append,
            leave_if_unwanted=replace,
        )
    assert len(done) == 100
    assert set(done) == {good.pid, anew[0].pid}


def fit_and_unfit(
    running: RunningDask, folder: Path
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes], int]:
    """A worker with the run's code, one with other code, and the port of the second. Both have connected."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    good, other = running.worker("good"), running.worker("other", other_code(folder / "theirs"), port=port)
    with Client(running.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE_SECONDS)
    return good, other, port


def unfit_again(workers: FitWorkers) -> bool:
    """Whether a worker is unfit when they are counted anew, or none is there."""
    workers.count_now(some_are_named=True)
    return workers.named is not None or not workers.count


def test_the_digest_is_of_every_source_file_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.py").write_text("x = 1\n")
    (tmp_path / "two.py").write_text("x = 2\n")
    found = [digest_of_sources(tmp_path)]
    (tmp_path / "a" / "b" / "one.py").write_text("x = 3\n")
    found.append(digest_of_sources(tmp_path))
    (tmp_path / "two.py").rename(tmp_path / "three.py")
    found.append(digest_of_sources(tmp_path))
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "one.pyc").write_bytes(b"compiled")
    assert len(set(found)) == 3
    assert digest_of_sources(tmp_path) == found[-1]
