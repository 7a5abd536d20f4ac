"""What a real command line's processes hold and leave: no Prefect in workers, nothing at home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from places import ROOT
from running_process import workers_of

pytestmark = pytest.mark.slow


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """``python -m flows.curate`` with an output of its own; ``at_home`` is its environment."""
    return [sys.executable, "-m", "flows.curate", "--output", str(tmp_path / "out"), "--workers", "1"]


def at_home(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "HOME": str(folder / "user"), "ASSAY_HOME": str(folder / "home")}


def test_a_worker_that_has_its_model_has_not_imported_prefect(tmp_path: Path, command: list[str]) -> None:
    chats = tmp_path / "chats.jsonl"
    text = "a long story, " * 200
    with chats.open("w") as file:
        for number in range(300):
            messages = [
                {"role": "user", "content": f"{number}"},
                {"role": "assistant", "content": text + str(number)},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    run = subprocess.Popen(
        [*command, "--input", str(chats)], cwd=ROOT, env=at_home(tmp_path), stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        libraries: set[str] = set()
        while not any(name.startswith("libtorch") for name in libraries):
            assert run.poll() is None, "the run ended before a worker was seen"
            assert time.monotonic() < deadline
            time.sleep(0.2)
            libraries = {name for worker in workers_of(run.pid) for name in mapped(worker)}
        assert not any("pydantic_core" in name or "sqlalchemy" in name for name in libraries)
    finally:
        run.kill()
        run.wait()


def mapped(process: psutil.Process) -> set[str]:
    """The names of the libraries that a process has loaded."""
    try:
        return {Path(one.path).name for one in process.memory_maps()}
    except psutil.NoSuchProcess:
        return set()


def test_a_run_that_fails_leaves_nothing_in_the_users_home(tmp_path: Path, command: list[str]) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    (tmp_path / "user").mkdir()
    ended = subprocess.run(
        [*command, "--input", str(broken), "--strict"],
        cwd=ROOT,
        env=at_home(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in ended.stderr
    assert [path for path in (tmp_path / "user").rglob("*") if path.is_file()] == []
