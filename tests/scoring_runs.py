"""Runs of scoring alone with a model of no weights, and what they leave in the store."""

from __future__ import annotations

import multiprocessing.process
import time
from collections.abc import Callable, Iterable

import handmade
import polars as pl
import psutil
import stages
from handmade import Record
from patience import PATIENCE_SECONDS
from stages import Heard

from assay.rewards.spec import LocalSpec
from assay.score.scoring import ScoringWork
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored
from assay.workers.cluster import ClusterOptions

#: Starts a function of a module with its arguments in a process of its own.
Spawn = Callable[..., multiprocessing.process.BaseProcess]

TWO_WORKERS = ClusterOptions(workers=2)


def chat(*texts: str) -> tuple[tuple[str, str], ...]:
    return tuple(("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts))


def records(count: int, *, mark: str = "", first: int = 0) -> list[Record]:
    numbers = range(first, first + count)
    return [Record(n + 1, chat(f"question {n}", f"answer {n} {mark}", "more", f"more {n}")) for n in numbers]


def convert(home: Home, *pieces: list[Record]) -> Converted:
    return handmade.make(home, {"chat.jsonl": pieces}).converted


def score(
    converted: Converted,
    model: LocalSpec,
    home: Home,
    *,
    workers: ClusterOptions = TWO_WORKERS,
    shard_tokens: int = 60,
    heard: Heard | None = None,
) -> tuple[Scored, ScoringWork]:
    return stages.score(
        converted,
        model,
        home=home,
        cluster=workers,
        shard_tokens=shard_tokens,
        progress=heard or Heard(),
    )


def values(scored: Scored, home: Home) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(home.artifacts / piece.scores.path) for piece in scored.pieces])


def store_files(home: Home) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.scores.glob("*/*.parquet")}


def wait(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(processes: Iterable[psutil.Process]) -> bool:
    """Whether none of them runs any more; what nobody has waited for is gone too."""
    return not any(_alive(process) for process in processes)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
