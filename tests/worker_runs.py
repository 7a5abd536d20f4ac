"""Runs of all stages on workers that a run keeps, with few records and many jobs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from converting import line
from running_process import workers_of
from stage_runs import model_of
from stages import Heard, take_inventory

from assay.export import EXPORT, ToExport
from assay.export.folder import OutputFolder
from assay.read import convert as converting
from assay.read.convert import CONVERT, ToConvert
from assay.score import gathering
from assay.score.scoring import SCORE, ToScore
from assay.select.decide import DECIDE, ToDecide
from assay.select.rules import parse_rules
from assay.select.selection import Selection
from assay.storage import piece_jobs
from assay.storage.home import Home
from assay.storage.stage import RunContext
from assay.workers.cluster import ClusterOptions
from assay.workers.of_run import RunWorkers

RESULTS = {"decisions.parquet", "labeled.jsonl", "messages.jsonl", "quarantine.jsonl", "scores.parquet"}

FILES = 3
LINES = 40


def prepared(root: Path) -> Path:
    """The folder, with inputs of several shards, and a model."""
    (root / "model").mkdir(parents=True)
    (root / "model" / "model.safetensors").write_bytes(b"weights" * 100)
    (root / "chats").mkdir()
    for name in range(FILES):
        lines = [line(f"question {n} of {name}", f"answer {n}", "more", f"more {n}") for n in range(LINES)]
        (root / "chats" / f"{name}.jsonl").write_bytes(b"\n".join([*lines, b"{no json %d" % name]))
    return root


def few_are_worth_it(put: Callable[[object, str, object], None]) -> None:
    """``put`` (``setattr``) the sizes of jobs so that a run of a few records has many."""
    put(converting, "_WORTH_WORKERS_BYTES", 0)
    put(gathering, "_WORTH_WORKERS_TURNS", 0)
    put(gathering, "_LEAST_TURNS", 1)
    put(piece_jobs, "_WORTH_WORKERS_RECORDS", 0)
    put(piece_jobs, "_JOB_RECORDS", 1)


def results(
    root: Path,
    output: Path,
    *,
    home: Path,
    workers: int,
    leave_if_unwanted: Callable[[], None] = lambda: None,
) -> dict[str, bytes]:
    """The result files of a run over the inputs in ``root``, made in the folder ``output``."""
    place, model = Home(home), model_of(root)
    inventory = take_inventory([str(root / "chats")], shard_bytes=1000, home=place)
    output.mkdir()
    with RunWorkers(ClusterOptions(workers=workers)) as kept:
        context = RunContext(place, Heard(), leave_if_unwanted, kept)
        converted = CONVERT.run(ToConvert(inventory, find_languages=True), context)
        given = ToScore(converted, model, ClusterOptions(workers=workers), shard_tokens=200)
        scored = SCORE.run(given, context)
        rules = parse_rules(["helpfulness >= 1", "answer_chars > 5"], attributes=scored.attributes)
        filtered = DECIDE.run(ToDecide(converted, scored, rules, Selection()), context)
        exports = ("messages", "steerlm")
        folder = OutputFolder(root / "published")
        EXPORT.run(ToExport(converted, scored, filtered, exports, folder, output), context)
    return {path.name: path.read_bytes() for path in output.iterdir()}


def check_nothing_twice(home: Path) -> None:
    """Every turn is stored once, and no temporary file is left."""
    keys = pl.concat([pl.read_parquet(path) for path in home.glob("scores/*/*.parquet")])["key"]
    assert (len(keys), keys.n_unique()) == (2 * FILES * LINES, 2 * FILES * LINES)
    assert list(home.rglob("*.tmp")) == list(home.glob("artifacts/export/*")) == []


class Killing:
    """Kills a worker once, when the stage has made a file: to be called while a stage has jobs done."""

    def __init__(self, home: Path, made: str) -> None:
        self._home = home
        self._made = made
        self.killed = 0

    def __call__(self) -> None:
        """Kill one, if it is time."""
        if not self.killed and any(self._home.glob(self._made)):
            workers = workers_of()
            os.kill(workers[0].pid, signal.SIGKILL)
            self.killed += 1


def slowly(root: Path, output: Path, home: Path) -> None:
    """A run that hands out its jobs slowly, so that it is killed in the middle of a stage."""
    few_are_worth_it(setattr)
    results(root, output, home=home, workers=2, leave_if_unwanted=lambda: time.sleep(0.2))
    (output / "ended").touch()
