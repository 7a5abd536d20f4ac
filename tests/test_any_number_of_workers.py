"""Whoever does a run's work, and whoever is killed meanwhile, the results have the same bytes."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path

import psutil
import pytest
from scoring_runs import gone, wait
from worker_runs import RESULTS, Killing, check_nothing_twice, few, prepared, results, slowly

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few")]

__all__ = ["few"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return prepared(tmp_path / "run")


@pytest.fixture
def undisturbed(root: Path) -> dict[str, bytes]:
    """What a run comes to that does all but scoring in one process."""
    made = results(root, "undisturbed", home=root / "undisturbed-home", workers=1)
    assert made.keys() == RESULTS
    return made


def test_any_number_of_workers_writes_the_same_results(root: Path, undisturbed: dict[str, bytes]) -> None:
    for workers in (2, 3):
        home = root / f"home-{workers}"
        assert results(root, f"by-{workers}", home=home, workers=workers) == undisturbed
        check_nothing_twice(home)


@pytest.mark.faults
@pytest.mark.parametrize("made", ["artifacts/convert/*/manifest.json", "artifacts/score/*/piece-*.parquet"])
def test_a_worker_that_is_killed_in_any_stage_changes_no_result(
    root: Path, undisturbed: dict[str, bytes], made: str
) -> None:
    home = root / "home"
    killing = Killing(home, made)
    assert results(root, "out", home=home, workers=2, leave_if_unwanted=killing) == undisturbed
    assert killing.killed == 1
    check_nothing_twice(home)


@pytest.mark.faults
@pytest.mark.parametrize("made", ["artifacts/convert/*/manifest.json", "artifacts/score/*/piece-*.parquet"])
def test_a_run_that_is_killed_in_any_stage_is_finished_by_the_next(
    root: Path, undisturbed: dict[str, bytes], made: str
) -> None:
    home = root / "home"
    child = multiprocessing.get_context("spawn").Process(target=slowly, args=(root, home))
    child.start()
    assert child.pid is not None
    wait(lambda: any(home.glob(made)), 120)
    family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.join()
    wait(partial(gone, family), 30)
    assert not (root / "ended.json").exists(), "the run was killed before its end"
    assert results(root, "out", home=home, workers=2) == undisturbed
    check_nothing_twice(home)
