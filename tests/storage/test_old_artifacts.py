"""What no run has used for days goes, and nothing else does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from assay.storage.artifacts import are_intact, artifacts_of
from assay.storage.home import Artifact, Home
from assay.storage.old_artifacts import LEAST_DAYS, Removed, remove_old_artifacts

_DAY_SECONDS = 86_400


def _file(path: Path, days_old: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"rows")
    at = time.time() - days_old * _DAY_SECONDS
    os.utime(path, (at, at))
    return path


def _age(folder: Path, days_old: float) -> None:
    for each in (*folder.rglob("*"), folder):
        at = time.time() - days_old * _DAY_SECONDS
        os.utime(each, (at, at))


@pytest.mark.parametrize(("days", "stays"), [(30, 29), (1, LEAST_DAYS - 1)])
def test_what_nobody_used_for_so_many_days_goes(tmp_path: Path, days: int, stays: float) -> None:
    home = Home(tmp_path)
    for path in (home.artifacts / "old/a.parquet", home.manifests / "convert-0.json"):
        _file(path, 31)
    used = _file(home.artifacts / "used/a.parquet", stays)
    assert remove_old_artifacts(home, days) == Removed(files=2, size=8)
    assert [path for path in home.artifacts.rglob("*") if path.is_file()] == [used]


def test_no_score_no_plan_and_nothing_of_prefect_goes(tmp_path: Path) -> None:
    home = Home(tmp_path)
    removed = (home.artifacts, home.manifests)
    others = [_file(folder / "a", 4000) for folder in home.folders if folder not in removed]
    assert len(others) == 4
    assert remove_old_artifacts(home, 1) == Removed(files=0, size=0)
    assert all(path.exists() for path in others)


def test_what_a_run_found_intact_counts_as_used(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = _file(home.artifacts / "converted/a.parquet", 100)
    artifact = Artifact.of(path, home)
    _age(home.artifacts, 100)
    written = path.stat().st_mtime_ns
    assert are_intact([artifact], home)
    assert remove_old_artifacts(home, 30).files == 0
    assert path.exists()
    assert path.stat().st_mtime_ns == written


def test_what_a_run_counts_on_without_reading_it_counts_as_used(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = _file(home.artifacts / "converted/a.parquet", 100)
    assert artifacts_of(home).hold(["converted/a.parquet"])
    assert remove_old_artifacts(home, 30).files == 0
    assert path.exists()


def test_folders_that_another_run_removes_meanwhile_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    _file(home.artifacts / "convert/a.parquet", 100)
    (home.artifacts / "export/of-another-run").mkdir(parents=True)
    listed = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == "of-another-run":
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert remove_old_artifacts(home, 30).files == 1
