"""Workers of a run: started once, for what is worth it, and gone with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from job_doers import Noted
from scoring_runs import gone, wait
from stages import Heard

from assay.core.errors import ClusterFault
from assay.core.jobs import Job
from assay.storage.home import Home
from assay.storage.stage import RunContext
from assay.workers import of_run
from assay.workers.cluster import ClusterOptions
from assay.workers.of_run import RunWorkers


def done(workers: RunWorkers, asked: Sequence[Job[int]], heard: Heard | None = None) -> list[int]:
    """The processes that did the jobs."""
    found: list[int] = []
    workers.do(
        asked,
        stage="note",
        progress=heard or Heard(),
        leave_if_unwanted=lambda: None,
        done=found.append,
    )
    return found


def notes(folder: Path, count: int, **harm: str) -> list[Noted]:
    return [Noted(number, folder, harm.get(f"_{number}", "")) for number in range(count)]


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_run, "connected", lambda *_: pytest.fail("a cluster was started"))


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("options", "reach_files", "count"),
    [
        (ClusterOptions(workers=1), True, 9),
        (ClusterOptions(workers=4), True, 1),
        (ClusterOptions(workers=4), True, 0),
        (ClusterOptions(scheduler_address="tcp://127.0.0.1:9"), False, 9),
    ],
    ids=["one worker", "one job", "no job", "workers with another home"],
)
def test_no_process_is_started_where_it_brings_nothing(
    options: ClusterOptions, reach_files: bool, count: int, tmp_path: Path
) -> None:
    with RunWorkers(options, reach_files=reach_files) as workers:
        assert done(workers, notes(tmp_path, count)) == [os.getpid()] * count


@pytest.mark.slow
def test_workers_start_once_for_all_stages_and_end_with_the_run(tmp_path: Path) -> None:
    with RunWorkers(ClusterOptions(workers=2)) as workers:
        assert not workers.are_running
        first = done(workers, notes(tmp_path, 12))
        assert workers.are_running
        second = done(workers, notes(tmp_path, 12))
        started = {psutil.Process(pid) for pid in {*first, *second}}
        assert len(started) == 2
        assert os.getpid() not in first
    wait(partial(gone, started), 20)


@pytest.mark.slow
def test_an_error_ends_the_workers_and_the_next_stage_gets_others(tmp_path: Path) -> None:
    with RunWorkers(ClusterOptions(workers=2)) as workers:
        with pytest.raises(OSError, match="No space left on device"):
            done(workers, notes(tmp_path, 4, _1="full"))
        first = {path.name.partition("-")[2] for path in tmp_path.iterdir()}
        again = done(workers, notes(tmp_path, 4))
        assert len(again) == 4
        assert not first & {str(pid) for pid in again}


@pytest.mark.slow
@pytest.mark.faults
def test_a_job_that_kills_its_workers_takes_no_other_with_it(tmp_path: Path) -> None:
    heard = Heard()
    with RunWorkers(ClusterOptions(workers=2)) as workers:
        ended = done(workers, notes(tmp_path, 8, _3="kill"), heard)
    assert ended.count(0) == 1
    assert {int(path.name.partition("-")[0]) for path in tmp_path.iterdir()} == {0, 1, 2, 4, 5, 6, 7}
    assert heard.lines == ["note 3: its worker died more than once; trying it again, alone"]


@pytest.mark.slow
@pytest.mark.faults
def test_a_suspect_is_handed_out_once_nothing_else_is(tmp_path: Path) -> None:
    heard, ended = Heard(), list[int]()
    handed_out: list[int] = []
    with RunWorkers(ClusterOptions(workers=2)) as workers, workers.client(heard) as client:

        def look() -> None:
            """Let the innocent job end at the third look since the other became a suspect."""
            if heard.lines:
                handed_out.append(len(client.futures))
            if len(handed_out) == 3:
                (tmp_path / "go").touch()

        workers.do(
            notes(tmp_path, 2, _0="kill", _1="wait"),
            stage="note",
            progress=heard,
            leave_if_unwanted=look,
            done=ended.append,
        )
    # Dask lets go of an attempt that has ended a little later: the first look may still count it.
    assert handed_out[2] == 1
    assert [process == 0 for process in ended] == [False, True]


@pytest.mark.parametrize(("model_bytes", "stay"), [(10**6, True), (10**10, False)])
def test_workers_for_a_model_are_the_runs_own_and_stay_unless_it_is_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_bytes: int, stay: bool
) -> None:
    opened: list[str] = []

    class FakeClient:
        dashboard_link = "http://127.0.0.1:1/status"

    @contextmanager
    def connected(options: ClusterOptions, *_: object) -> Iterator[FakeClient]:
        opened.append("started")
        yield FakeClient()
        opened.append("ended")

    monkeypatch.setattr(of_run, "connected", connected)
    monkeypatch.setattr(of_run, "scores_on_gpus", lambda options: False)
    options = ClusterOptions(workers=2, show_dashboard=opened.append, model_bytes=model_bytes)
    with RunWorkers(ClusterOptions(workers=2)) as workers:
        context = RunContext(Home(tmp_path), workers=workers)
        for _ in range(2):
            with of_run.workers_for(options, context):
                opened.append("scores")
    once = ["http://127.0.0.1:1/status", "scores"]
    again = [] if stay else ["ended", "started"]
    assert opened == ["started", *once, *again, *once, "ended"]


def test_where_no_worker_starts_the_run_does_their_jobs_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = 0

    def failing(*_: object) -> AbstractContextManager[None]:
        nonlocal tried
        tried += 1
        raise ClusterFault("the workers could not be started: no room")

    monkeypatch.setattr(of_run, "connected", failing)
    heard = Heard()
    with RunWorkers(ClusterOptions(workers=2)) as workers:
        assert workers.are_several
        for _ in range(2):
            assert done(workers, notes(tmp_path, 3), heard) == [os.getpid()] * 3
        assert not workers.are_several
    assert heard.lines == [
        "the workers could not be started: no room. The run's own process does what they would do"
    ]
    assert tried == 1


def test_workers_on_gpus_are_a_models_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[ClusterOptions] = []

    @contextmanager
    def connected(options: ClusterOptions, *_: object) -> Iterator[None]:
        asked.append(options)
        yield None

    monkeypatch.setattr(of_run, "connected", connected)
    monkeypatch.setattr("assay.workers.cluster.visible_devices", lambda: ["0"])
    with RunWorkers(ClusterOptions()) as workers:
        context = RunContext(Home(tmp_path), workers=workers)
        with of_run.workers_for(ClusterOptions(), context):
            pass
        with workers.client(Heard()):
            pass
    assert [options.on_cores for options in asked] == [False, True]
