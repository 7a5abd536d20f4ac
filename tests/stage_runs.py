"""Runs of all stages in one process, without Prefect and without Dask, with a model of no weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import fakes
import stages
from stages import Heard, build, convert, decide, take_inventory

from assay.core.jobs import AtWork, Job, Result
from assay.rewards.fingerprint import fingerprint
from assay.rewards.spec import LocalSpec
from assay.score import ways
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored
from assay.workers import dispatch
from assay.workers.cluster import ClusterOptions


@dataclass
class Run:
    """What a run came to."""

    converted: Converted
    scored: Scored
    filtered: Filtered
    results: dict[str, bytes]
    turns_scored: int
    said: list[str] = field(default_factory=list)


@contextmanager
def nobody(*options: object, **more: object) -> Iterator[None]:
    yield None


def here(
    client: None, jobs: Iterable[Job[Result]], *, done: Callable[[Result], None], **more: object
) -> None:
    """Do the jobs in this process: what Dask's workers would do."""
    for job in jobs:
        done(job.done_by(AtWork()))


def scored_in_this_process(put: Callable[[object, str, object], None]) -> None:
    """``put`` (``setattr``) what scores shards here in the place of Dask's workers."""
    put(ways, "workers_for", nobody)
    put(dispatch, "dispatch", here)


def model_of(root: Path) -> LocalSpec:
    """A fake with weights, whose fingerprint is computed as a real model's is."""
    home = Home(root / "home")
    found = fingerprint(
        root / "model",
        family="sequence-classification",
        attributes=("helpfulness", "verbosity"),
        dtype="float32",
        max_tokens=1000,
        over_length="quarantine",
        remote_code=False,
        digest_cache=home.model_digests,
    )
    return fakes.spec(root / "model", found)


def run(
    root: Path, chats: str = "chats", *, inventory_home: Home | None = None, shard_tokens: int = 20
) -> Run:
    """A run over the inputs in ``root``, with the home that is there.

    The inventory's digests are kept in ``inventory_home``, or else nowhere.
    """
    home, heard = Home(root / "home"), Heard()
    model = model_of(root)
    inventory = take_inventory([str((root / chats).resolve())], home=inventory_home)
    converted = convert(inventory, home=home, progress=heard)
    scored, work = stages.score(
        converted, model, home=home, cluster=ClusterOptions(), shard_tokens=shard_tokens, progress=heard
    )
    filtered = decide(converted, scored, rules=Rules(), home=home)
    staging = root / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    build(converted, scored, filtered, home=home, staging=staging, exports=["messages"])
    results = {path.name: path.read_bytes() for path in staging.iterdir()}
    return Run(converted, scored, filtered, results, work.turns_scored, heard.lines)
