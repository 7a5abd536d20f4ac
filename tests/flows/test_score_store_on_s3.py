"""A run, and workers on other machines, that have nothing in common but a scheduler, a bucket and the model.

Other machines are played by ``ASSAY_HOME=/proc/self/cwd/home``: one path, which is another folder in every
process, as it would be on machines that share no file system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_SECONDS
from places import ROOT

from assay.storage.s3 import Objects
from assay.workers.environment import WORKER_ENVIRONMENT

HOME = "/proc/self/cwd/home"
INPUTS = ["support.messages.jsonl", "archive.messages.jsonl.gz", "forum.oasst.jsonl"]
SECRET = b"canary-secret-of-s3"

# `python -m flows.curate`, which waits less long for the dead.
DRIVER = """
from assay.score.segments import lease
lease.LEASE_SECONDS = 5.0
from flows.command.main import run_module
run_module("curate")
"""

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs Linux's /proc"),
]


def until(true: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def machine(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


@pytest.fixture
def scheduler(tmp_path: Path, s3: str) -> Iterator[str]:
    """The address of a scheduler with two workers, each in a folder, and a home, of its own."""
    found = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    where = ["--scheduler-file", str(found), "--host", "127.0.0.1"]
    with ExitStack() as started:

        def start(*command: str, name: str) -> None:
            folder = machine(tmp_path, name)
            log = started.enter_context((folder / "log").open("wb"))
            environment = {**os.environ, **WORKER_ENVIRONMENT, "ASSAY_HOME": HOME}
            process = subprocess.Popen(
                [*dask, *command, *where], cwd=folder, env=environment, stdout=log, stderr=log
            )
            started.callback(process.wait)
            started.callback(process.terminate)

        start("scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0", name="scheduler")
        until(found.exists, PATIENCE_SECONDS, "a scheduler")
        for number in range(2):
            start("worker", "--nthreads", "1", "--no-dashboard", name=f"worker-{number}")
        yield json.loads(found.read_text())["address"]


def command(folder: Path, prefect_api: str, output: Path, **settings: str) -> subprocess.Popen[bytes]:
    inputs = [*(str(ROOT / "samples" / name) for name in INPUTS), str(folder.parent / "many.jsonl")]
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, **settings}
    log = (folder / "log").open("ab")
    with log:
        return subprocess.Popen(
            [
                *(sys.executable, "-c", DRIVER, "--input", *inputs, "--output", str(output)),
                *("--export", "steerlm", "messages", "--shard-tokens", "300"),
            ],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )


def results(output: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in output.iterdir()
        if path.name not in ("manifest.json", "report.html")
    }


def scored_by_this_run(output: Path) -> int:
    found = json.loads((output / "manifest.json").read_bytes())["turns"]["scored"]
    assert isinstance(found, int)
    return found


def test_workers_that_share_nothing_but_the_bucket_give_the_results_of_one_machine(
    tmp_path: Path,
    prefect_api: str,
    prefect_folder: Path,
    scheduler: str,
    bucket: str,
) -> None:
    with (tmp_path / "many.jsonl").open("w") as many:
        for number in range(80):
            answer = {"role": "assistant", "content": f"{number} times, " * 120}
            many.write(json.dumps({"messages": [{"role": "user", "content": f"{number}?"}, answer]}) + "\n")
    alone = machine(tmp_path, "alone")
    one_machine = command(alone, prefect_api, alone / "out", ASSAY_HOME=HOME)

    driver = machine(tmp_path, "driver")
    settings = {"ASSAY_HOME": HOME, "ASSAY_SCORE_STORE": bucket, "ASSAY_SCHEDULER_ADDRESS": scheduler}

    def segments() -> list[str]:
        (fingerprint,) = [path.name for path in (driver / "home/plans").iterdir()]
        names = [one.name for one in Objects(bucket).below(fingerprint).list()]
        return [name for name in names if name.endswith(".parquet")]

    assert one_machine.wait(PATIENCE_SECONDS) == 0, (alone / "log").read_text()
    expected, turns = results(alone / "out"), scored_by_this_run(alone / "out")

    killed = command(driver, prefect_api, driver / "out", **settings)
    until((driver / "home/plans").exists, PATIENCE_SECONDS, "a plan")
    until(lambda: len(segments()) >= 2, PATIENCE_SECONDS, "two segments")
    killed.kill()
    killed.wait()
    assert not (driver / "out").exists()

    assert command(driver, prefect_api, driver / "out", **settings).wait(PATIENCE_SECONDS) == 0, (
        driver / "log"
    ).read_text()
    said = (driver / "log").read_text()
    assert f"pid {killed.pid}) is scoring with this model; waiting" in said
    assert "finishing an earlier run's plan first" in said
    assert results(driver / "out") == expected
    assert 0 < scored_by_this_run(driver / "out") < turns

    rerun = command(driver, prefect_api, driver / "again", **settings)
    assert rerun.wait(PATIENCE_SECONDS) == 0
    assert scored_by_this_run(driver / "again") == 0
    # A machine that has nothing yet but the bucket's name.
    newcomer = machine(tmp_path, "newcomer")
    assert command(newcomer, prefect_api, newcomer / "out", **settings).wait(PATIENCE_SECONDS) == 0
    assert scored_by_this_run(newcomer / "out") == 0
    assert results(driver / "again") == results(newcomer / "out") == expected

    assert not (driver / "home/scores").exists()
    assert not [path for number in range(2) for path in (tmp_path / f"worker-{number}").rglob("*.parquet")]
    places = [tmp_path, prefect_folder]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    with_secret = [path for path in files if SECRET in path.read_bytes()]
    assert any(path.name.startswith("prefect.db") for path in files)
    assert with_secret == []
