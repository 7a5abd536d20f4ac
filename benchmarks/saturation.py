"""Where a run saturates: CPU seconds a shard of its driver and of Dask's scheduler, by number of workers.

    python benchmarks/saturation.py [--workers 10 100 1000] [--rate 25] [--json figures.json]
    python benchmarks/saturation.py --all-kinds [--workers 100]

Dask's scheduler is a process of its own, and so is the driver: it runs the real ``dispatch`` with shards of
real size. The workers are real too, one thread each, but live together in a few processes, and a shard takes
them a sleep instead of scoring. So two cores carry 1,000 workers, and what is counted is the CPU time of the
driver and of the scheduler alone, and not the time that goes by.

idle    a second without work: heartbeats
shard   what is above that, by the number of shards
least   seconds that a shard must take for so many workers to leave each of the two below a whole core

With ``--all-kinds`` the jobs are those of the other stages in a run of 300,000 records. For each kind, the
job whose time is closest to the median is sent to workers again and again, and its result comes back.

most    the most workers that leave driver and scheduler below a whole core each, if a job takes as long as in
        that run
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import peers
import polars as pl
import psutil
from distributed import Client, Worker
from jobs_of_a_run import Done, jobs_of_a_run

from assay.core.jobs import AtWork, Job
from assay.rewards.spec import LocalSpec
from assay.score.shard import Shard, ShardJob, ShardWork
from assay.storage.home import Home
from assay.workers.dispatch import dispatch

#: Workers of one process: so few that it keeps up with what they are sent.
WORKERS_A_PROCESS = 125

#: A shard of 2^18 tokens, at the 480 tokens a turn and four turns a record of ShareGPT.
TURNS = 546
RECORDS = 136

#: Shards a second that all workers finish together, whatever their number, unless the driver is too slow.
SHARDS_A_SECOND = 25.0
IDLE_SECONDS = 15.0
LEAST_SHARDS = 500

MODEL = LocalSpec(
    name="none",
    folder="/nowhere",
    family="sequence-classification",
    attributes=("helpfulness",),
    max_tokens=4096,
    over_length="quarantine",
    dtype="bfloat16",
    opener="nobody:opens",
    fingerprint="ab" * 16,
)


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of one process."""

    idle: float
    """A second without work."""
    shard: float

    def least_seconds(self, workers: int) -> float:
        """What a shard has to take at least, for so many workers to leave this process below one core."""
        return self.shard * workers / max(1e-9, 1.0 - self.idle)


def shard(number: int) -> Shard:
    """A shard as a plan gives it, which goes over the wire whole."""
    rows = pl.Series("row", [turn * RECORDS // TURNS for turn in range(TURNS)], pl.UInt32)
    members = pl.DataFrame(
        {
            "piece": pl.Series([0] * TURNS, dtype=pl.UInt32),
            "row": rows,
            "turn": pl.Series([turn % 4 for turn in range(TURNS)], dtype=pl.UInt32),
            "key": pl.Series([os.urandom(16) for _ in range(TURNS)], dtype=pl.Binary),
        }
    )
    return Shard(number, members, {0: f"convert/{'c' * 32}/records-00000.parquet"}, 1 << 18)


def scoring() -> Done:
    """A shard of real size, and the result of scoring it."""
    work = ShardWork(0, "ab" * 16, TURNS, 0, 1 << 18, 1.0, "host:1")
    return Done(ShardJob(shard(0), MODEL, Home(Path("/nowhere"))), work, 1.0)


def host(address: str, count: int, seconds: float, kind: type[Job[Any]], result: object) -> None:
    """Run ``count`` workers of one thread each, which sleep instead of doing jobs of this kind."""

    def slept(job: Job[Any], at: AtWork) -> object:
        time.sleep(seconds)
        return result

    setattr(kind, "done_by", slept)  # noqa: B010 - mypy allows no other way

    async def main() -> None:
        # One by one: what they cost here is nobody's, but all at once they would time out.
        workers = [
            await Worker(
                address, nthreads=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0
            )
            for _ in range(count)
        ]
        await asyncio.gather(*(worker.finished() for worker in workers))

    # Each would look at itself, its memory and its threads many times a second, as if alone on a machine.
    quiet = {
        "distributed.admin.system-monitor.interval": "60s",
        "distributed.admin.tick.interval": "60s",
        "distributed.worker.profile.enabled": False,
    }
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(quiet):
        asyncio.run(main())


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measured(workers: int, rate: float, folder: Path, given: Done) -> tuple[Costs, Costs, float]:
    """Costs of the driver and of the scheduler with so many workers, and how many jobs a second there were.

    Each job sleeps as long as it takes to get about ``rate`` jobs a second.
    """
    seconds = workers / rate
    count = max(LEAST_SHARDS, 3 * workers)
    found = folder / f"scheduler-{workers}-{type(given.job).__name__}.json"
    with ExitStack() as stack:
        scheduler = subprocess.Popen(
            [
                *(sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0"),
                *("--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(found)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(scheduler.wait)
        stack.callback(scheduler.terminate)
        while not found.exists():
            time.sleep(0.1)
        address = json.loads(found.read_text())["address"]
        context = multiprocessing.get_context("spawn")
        for first in range(0, workers, WORKERS_A_PROCESS):
            size = min(WORKERS_A_PROCESS, workers - first)
            process = context.Process(
                target=host, args=(address, size, seconds, type(given.job), given.result), daemon=True
            )
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
        client = stack.enter_context(Client(address, set_as_default=False))
        client.wait_for_workers(workers, timeout=300)
        jobs = [given.job] * count
        both = [psutil.Process(), psutil.Process(scheduler.pid)]
        time.sleep(5)
        marks = [[cpu_seconds(process) for process in both]]
        began = [time.monotonic()]
        time.sleep(IDLE_SECONDS)
        marks.append([cpu_seconds(process) for process in both])
        began.append(time.monotonic())
        finished: list[Any] = []
        dispatch(client, jobs, stage="score", done=finished.append, leave_if_unwanted=lambda: None)
        marks.append([cpu_seconds(process) for process in both])
        began.append(time.monotonic())
        assert len(finished) == count
    idle_seconds, busy_seconds = began[1] - began[0], began[2] - began[1]
    costs = []
    for before, idle, after in zip(*marks, strict=True):
        a_second = (idle - before) / idle_seconds
        costs.append(Costs(a_second, max(0.0, after - idle - a_second * busy_seconds) / count))
    return costs[0], costs[1], count / busy_seconds


def all_kinds(workers: int, rate: float, folder: Path) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Figures and rows for a job of each kind but scoring."""
    figures: dict[str, float] = {}
    rows = []
    for kind, given in jobs_of_a_run(folder).items():
        driver, scheduler, _ = measured(workers, rate, folder, given)
        most = min((1 - costs.idle) * given.seconds / max(1e-6, costs.shard) for costs in (driver, scheduler))
        sent, came = (len(pickle.dumps(one)) for one in (given.job, given.result))
        told = [f"{given.seconds:.2f} s, {sent / 1e3:.1f} kB sent, {came / 1e3:.1f} kB back"]
        for name, costs in (("driver", driver), ("scheduler", scheduler)):
            figures[f"{kind}_{name}"] = costs.shard
            told.append(f"{name} {1000 * costs.shard:.2f} ms")
        figures[f"{kind}_most"] = most
        rows.append((f"{kind}, {workers:,} workers", f"{', '.join(told)}; most {most:,.0f}"))
        print(*rows[-1], file=sys.stderr)
    return figures, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 50, 100, 250, 500, 1000])
    parser.add_argument("--rate", type=float, default=SHARDS_A_SECOND, help="shards a second, wanted")
    parser.add_argument("--json", type=Path, help="write the figures to this file as one flat object")
    parser.add_argument("--all-kinds", action="store_true", help="measure jobs of all stages except scoring")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        if options.all_kinds:
            figures, rows = all_kinds(options.workers[0], options.rate, Path(temporary))
            options.workers = []
        for workers in options.workers:
            driver, scheduler, rate = measured(workers, options.rate, Path(temporary), scoring())
            figures[f"shards_a_second_{workers}"] = rate
            for name, costs in (("driver", driver), ("scheduler", scheduler)):
                least = costs.least_seconds(workers)
                figures |= {
                    f"{name}_idle_{workers}": costs.idle,
                    f"{name}_shard_{workers}": costs.shard,
                    f"{name}_least_seconds_{workers}": least,
                }
                told = f"idle {1000 * costs.idle:.1f} ms a second, shard {1000 * costs.shard:.2f} ms"
                rows.append(
                    (
                        f"{workers:,} workers, {rate:.1f} shards a second: {name}",
                        f"{told}, least {least:.2f} s",
                    )
                )
                print(*rows[-1], file=sys.stderr)
    peers.report("CPU time of the driver and of Dask's scheduler", rows, figures, options.json)


if __name__ == "__main__":
    main()
