"""Whoever does a run's work, and whoever is killed meanwhile, the results have the same bytes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from scoring_runs import gone, wait
from worker_runs import RESULTS, Killing, check_nothing_twice, few_are_worth_it, prepared, results, slowly

pytestmark = pytest.mark.slow

#: What workers make first in each stage, below the home folder.
MADE = {
    "convert": "artifacts/convert/*/manifest.json",
    "gather": "artifacts/score/*/piece-*.parquet",
    "filter": "artifacts/export/*/*.frames",
    "export": "artifacts/export/*/*.additions",
}
in_each_stage = pytest.mark.parametrize("made", MADE.values(), ids=MADE.keys())


class Undisturbed(NamedTuple):
    """A run that does all but scoring in one process."""

    root: Path
    """The folder of its inputs."""
    results: dict[str, bytes]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    with pytest.MonkeyPatch.context() as patch:
        few_are_worth_it(patch.setattr)
        root = prepared(tmp_path_factory.mktemp("runs") / "run")
        made = results(root, root / "out", home=root / "home", workers=1)
        assert made.keys() == RESULTS
        yield Undisturbed(root, made)


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.faults)])
def test_any_number_of_workers_writes_the_same_results(
    undisturbed: Undisturbed, tmp_path: Path, workers: int
) -> None:
    home = tmp_path / "home"
    assert results(undisturbed.root, tmp_path / "out", home=home, workers=workers) == undisturbed.results
    check_nothing_twice(home)


@pytest.mark.faults
@in_each_stage
def test_a_worker_that_is_killed_in_any_stage_changes_no_result(
    undisturbed: Undisturbed, tmp_path: Path, made: str
) -> None:
    home = tmp_path / "home"
    killing = Killing(home, made)
    found = results(undisturbed.root, tmp_path / "out", home=home, workers=2, leave_if_unwanted=killing)
    assert found == undisturbed.results
    assert killing.killed == 1
    check_nothing_twice(home)


@pytest.mark.faults
@in_each_stage
def test_a_run_that_is_killed_in_any_stage_is_finished_by_the_next(
    undisturbed: Undisturbed, tmp_path: Path, made: str
) -> None:
    home, slow = tmp_path / "home", tmp_path / "slow"
    child = multiprocessing.get_context("spawn").Process(target=slowly, args=(undisturbed.root, slow, home))
    child.start()
    assert child.pid is not None
    wait(lambda: any(home.glob(made)))
    family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.join()
    wait(partial(gone, family), 30)
    assert not (slow / "ended").exists(), "the run was killed before its end"
    assert results(undisturbed.root, tmp_path / "out", home=home, workers=2) == undisturbed.results
    check_nothing_twice(home)
