"""A run, and workers on other machines, that have nothing in common but a scheduler, a bucket and the model.

Other machines are played by ``ASSAY_HOME=/proc/self/cwd/home``: one path, which is another folder in every
process, as it would be on machines that share no file system.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from patience import PATIENCE_SECONDS
from places import ROOT
from running_dask import address_in

from assay.storage.s3 import Objects
from assay.storage.scratch import HANDOVER
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

# The same, where workers are worth starting for a few rows; it reports which stages hand jobs to them.
DRIVER_OF_FEW_ROWS = (
    """
import sys
from assay.read import convert, inventory
from assay.score import gathering
from assay.storage import piece_jobs
from assay.workers import of_run
convert._WORTH_WORKERS_BYTES = gathering._WORTH_WORKERS_TURNS = piece_jobs._WORTH_WORKERS_RECORDS = 0
gathering._LEAST_TURNS = piece_jobs._JOB_RECORDS = 1
real = of_run.dispatch
def dispatch(client, jobs, *, stage, **more):
    print("handed to workers:", stage, len(jobs), file=sys.stderr, flush=True)
    real(client, jobs, stage=stage, **more)
of_run.dispatch = dispatch
"""
    + DRIVER
)

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
        address = address_in(found)
        for number in range(2):
            start("worker", "--nthreads", "1", "--no-dashboard", name=f"worker-{number}")
        yield address


def command(
    folder: Path,
    prefect_api: str,
    output: Path,
    *,
    inputs: Sequence[str] = (),
    driver: str = DRIVER,
    **settings: str,
) -> subprocess.Popen[bytes]:
    inputs = inputs or [*(str(ROOT / "samples" / name) for name in INPUTS), str(folder.parent / "many.jsonl")]
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, **settings}
    log = (folder / "log").open("ab")
    with log:
        return subprocess.Popen(
            [
                *(sys.executable, "-c", driver, "--input", *inputs, "--output", str(output)),
                *("--export", "steerlm", "messages", "--shard-tokens", "300", "--keep", "answer_chars > 5"),
            ],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )


def many() -> bytes:
    """Eighty rows."""
    rows = []
    for number in range(80):
        answer = {"role": "assistant", "content": f"{number} times, " * 120}
        rows.append(json.dumps({"messages": [{"role": "user", "content": f"{number}?"}, answer]}))
    return "\n".join([*rows, ""]).encode()


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
    (tmp_path / "many.jsonl").write_bytes(many())
    alone = machine(tmp_path, "alone")
    one_machine = command(alone, prefect_api, alone / "out", ASSAY_HOME=HOME)

    driver = machine(tmp_path, "driver")
    settings = {"ASSAY_HOME": HOME, "ASSAY_SCORE_STORE": bucket, "ASSAY_SCHEDULER_ADDRESS": scheduler}

    def segments() -> list[str]:
        planned = {path.parent.parent.name for path in (driver / "home/plans").glob("*/*/plan.json")}
        names = [one.name for fingerprint in planned for one in Objects(bucket).below(fingerprint).list()]
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


def names_in(address: str) -> list[str]:
    return [one.name for one in Objects(address).list_all("")]


def pieces_in(home: Path) -> set[str]:
    """Files of stages on a machine's disk, but for what is known of its inputs."""
    files = (path for path in (home / "artifacts").rglob("*") if path.is_file())
    return {str(path.relative_to(home)) for path in files if path.parent.name != "ingest"}


def copies_in(home: Path) -> set[str]:
    """Copies of inputs on a machine's disk, whole or not yet."""
    return {str(path.relative_to(home)) for path in (home / "copies" / "inputs").rglob("*")}


def kill_worker(folder: Path) -> bool:
    """Kill the worker's process that works there; its nanny starts another."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder) and "spawn_main" in " ".join(process.cmdline()):
                process.kill()
                return True
    return False


def test_with_stages_in_a_bucket_workers_do_all_of_them_and_no_machine_holds_a_piece(
    tmp_path: Path, prefect_api: str, scheduler: str, bucket: str
) -> None:
    place = f"{bucket}-inputs"
    for name in INPUTS:
        Objects(place).put(name, (ROOT / "samples" / name).read_bytes())
    Objects(place).put("many.jsonl", many())
    # One input is a local file.
    local = tmp_path / "local.jsonl"
    local.write_bytes(many().replace(b"times", b"turns"))
    given: dict[str, Any] = {"inputs": [place, str(local)], "driver": DRIVER_OF_FEW_ROWS}

    alone = machine(tmp_path, "alone")
    one_machine = command(alone, prefect_api, alone / "out", ASSAY_HOME=HOME, **given)
    driver, stages = machine(tmp_path, "driver"), f"{bucket}-stages"
    settings = {
        "ASSAY_HOME": HOME,
        "ASSAY_SCORE_STORE": bucket,
        "ASSAY_ARTIFACTS": stages,
        "ASSAY_SCHEDULER_ADDRESS": scheduler,
    }
    assert one_machine.wait(PATIENCE_SECONDS) == 0, (alone / "log").read_text()
    expected = results(alone / "out")

    seen: set[str] = set()
    struck = False

    def look() -> None:
        seen.update(pieces_in(driver / "home") | copies_in(driver / "home"))

    def has_scores() -> bool:
        look()
        return any(name.endswith(".parquet") for name in names_in(bucket))

    killed = command(driver, prefect_api, driver / "out", **settings, **given)
    until(has_scores, PATIENCE_SECONDS, "scores")
    killed.kill()
    killed.wait()
    converted = [name for name in names_in(stages) if name.startswith("convert/")]
    rest = command(driver, prefect_api, driver / "out", **settings, **given)
    while rest.poll() is None:
        look()
        if not struck and "handed to workers: gather" in (driver / "log").read_text():
            struck = kill_worker(tmp_path / "worker-0")
        time.sleep(0.05)
    assert struck
    log = (driver / "log").read_text()
    assert rest.wait() == 0, log
    assert results(driver / "out") == expected

    handed = [line.split()[-2:] for line in log.splitlines() if line.startswith("handed to workers:")]
    assert [stage for stage, _ in handed] == [
        *("ingest", "convert", "gather", "filter", "export", "quarantine", "report")
    ]
    counts = {stage: int(count) for stage, count in handed}
    # Only the killed run looked at the 4 inputs: the next one remembers them. Two have unreadable rows.
    assert (counts.pop("ingest"), counts.pop("quarantine")) == (4, 2)
    assert all(count >= 5 for count in counts.values())
    # The run converts nothing itself, and keeps the killed run's work.
    assert f"worker on {socket.gethostname()}:" not in log
    left = names_in(stages)
    assert sorted(name for name in left if name.startswith("convert/")) == sorted(converted)
    assert len({name.rpartition(".")[0] for name in left}) == len(left)
    assert not [name for name in left if name.startswith(f"{HANDOVER}/")]
    machines = [driver / "home", *(tmp_path / f"worker-{number}/home" for number in range(2))]
    assert seen | set().union(*map(pieces_in, machines)) | copies_in(driver / "home") == set()
    assert [folder for folder in machines[1:] if list(folder.glob("copies/inputs/*"))]
