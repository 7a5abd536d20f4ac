"""Workers that outlive a run leave what it began, and runs that share a scheduler share no results."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fakes
import handmade
import planning
import pytest
import stages
import tiny
from distributed import Client, LocalCluster
from handmade import Record
from job_doers import Noted
from patience import PATIENCE_SECONDS

from assay.rewards.local.model import LocalRewardModel
from assay.rewards.spec import LocalSpec
from assay.score.open_model import opened
from assay.score.scoring import ScoringWork
from assay.score.shard import Shard, score_shard
from assay.score.store import KEY
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored
from assay.workers.cluster import ClusterOptions, on_gpus
from assay.workers.dispatch import dispatch
from assay.workers.environment import EXPECTS_CUDA
from assay.workers.in_worker import BATCHES_TOPIC

pytestmark = pytest.mark.slow

#: So many take a shard well beyond the 10 s within which its worker is to have left it.
MANY = int(30 / fakes.SLOW_SECONDS)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Client]:
    """A client of a scheduler and two workers that no run has started."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as running,
        Client(running, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def address(scheduler: Client) -> str:
    """The scheduler's."""
    found: str = scheduler.scheduler_info(n_workers=0)["address"]
    return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def computing(client: Client) -> bool:
    """Whether any worker computes anything, wanted or not."""
    return any(client.run(lambda dask_worker: bool(dask_worker.active_threads)).values())


def waited(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def converted(home: Home, count: int, mark: str = fakes.SLOW) -> Converted:
    records = [
        Record(n + 1, (("user", f"question {n} that {mark}"), ("assistant", f"answer {n}")))
        for n in range(count)
    ]
    return handmade.make(home, {"chat.jsonl": [records]}).converted


class Enough(Exception):
    """The run gets the order to stop."""


def score(
    records: Converted,
    model: LocalSpec,
    home: Home,
    address: str,
    *,
    shard_tokens: int | None = None,
    leave_if_unwanted: Callable[[], None] = lambda: None,
) -> tuple[Scored, ScoringWork]:
    return stages.score(
        records,
        model,
        home=home,
        cluster=ClusterOptions(scheduler_address=address),
        shard_tokens=shard_tokens,
        leave_if_unwanted=leave_if_unwanted,
    )


def started(function: Callable[..., object], *arguments: object) -> multiprocessing.process.BaseProcess:
    child = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    child.start()
    return child


def segments(home: Home, model: LocalSpec) -> list[Path]:
    """What that model's part of the store holds besides its lock, temporary files and all."""
    return [path for path in (home.scores / model.fingerprint).iterdir() if path.name != ".lock"]


@pytest.mark.parametrize("ending", ["asked to stop", "killed"])
@pytest.mark.faults
def test_a_worker_that_outlives_its_run_leaves_the_shard_within_a_batch(
    ending: str, home: Home, tmp_path: Path, scheduler: Client, address: str
) -> None:
    model = fakes.spec(tmp_path / "model")
    records = converted(home, MANY)

    def leave() -> None:
        if computing(scheduler):
            raise Enough

    if ending == "asked to stop":
        with pytest.raises(Enough):
            score(records, model, home, address, leave_if_unwanted=leave)
    else:
        child = started(score, records, model, home, address)
        assert waited(lambda: computing(scheduler), PATIENCE_SECONDS)
        child.kill()
        child.join()
    assert waited(lambda: not computing(scheduler), 10), "the worker goes on with what nobody wants"
    assert segments(home, model) == []
    assert fakes.calls(tmp_path / "model") == []


@pytest.mark.faults
def test_two_runs_on_one_scheduler_get_each_its_own_scores(home: Home, tmp_path: Path, address: str) -> None:
    models = [fakes.spec(tmp_path / name, fingerprint=name * 16) for name in ("12", "34")]
    records = converted(home, 12)
    runs = [started(_scored_in_shards, records, model, home, address) for model in models]
    for run in runs:
        run.join(PATIENCE_SECONDS)
    assert [run.exitcode for run in runs] == [0, 0]
    for model in models:
        assert len(fakes.calls(Path(model.folder))) == 12


def _scored_in_shards(records: Converted, model: LocalSpec, home: Home, address: str) -> None:
    _, work = score(records, model, home, address, shard_tokens=30)
    # A shard of the other run, taken for one of this run, would be counted here and scored by nobody.
    assert work.turns_scored == 12
    assert {shard.segment for shard in work.shards} == {path.stem for path in segments(home, model)}


def test_a_run_hears_its_own_batches_and_no_others(scheduler: Client, tmp_path: Path) -> None:
    """All runs on a scheduler have one topic."""
    heard: list[tuple[int, int]] = []
    ended: list[int] = []

    def done(process: int) -> None:
        """Jobs that are handed out after these events end after them."""
        if not ended:
            own = next(iter(scheduler.futures)).split("-")[1]
            scheduler.log_event(BATCHES_TOPIC, ["another", 5, 50])
            scheduler.log_event(BATCHES_TOPIC, [own, 3, 30])
        ended.append(process)

    dispatch(
        scheduler,
        [Noted(number, tmp_path) for number in range(20)],
        stage="note",
        done=done,
        leave_if_unwanted=lambda: None,
        batch=lambda turns, tokens: heard.append((turns, tokens)),
    )
    assert len(ended) == 20
    assert heard == [(3, 30)]


def test_a_schedulers_workers_are_asked_what_they_compute_on(scheduler: Client, address: str) -> None:
    options = ClusterOptions(scheduler_address=address)
    assert not on_gpus(options)
    try:
        scheduler.run(lambda: os.environ.update({EXPECTS_CUDA: "1"}))
        assert on_gpus(options)
    finally:
        scheduler.run(lambda: os.environ.pop(EXPECTS_CUDA))


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "behind a shared beginning"])
def test_a_real_model_asks_before_every_batch_and_writes_nothing_once_asked_to_leave(
    shared: bool, home: Home, tmp_path: Path
) -> None:
    spec = tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=4096))
    texts = [f"{n % 5}: a long question " * 40 if shared else f"{n} " + "words " * n for n in range(30)]
    records = [Record(n + 1, (("user", text), ("assistant", f"answer {n}"))) for n, text in enumerate(texts)]
    made = handmade.make(home, {"chat.jsonl": [records]}).converted
    members = planning.missing(made, spec, home).select("piece", "row", "turn", KEY)
    shard = Shard(0, members, {0: made.pieces[0].records}, estimated_tokens=1)
    model = opened(spec)
    assert isinstance(model, LocalRewardModel)
    asked: list[int] = []

    def check() -> None:
        asked.append(model.tokens_seen)
        if len(asked) == leave_at:
            raise Enough

    model.batch_tokens = 1000
    leave_at = 0
    undisturbed = score_shard(shard, spec, home, check=check)
    assert len(asked) >= 4
    # Something goes through the model between two looks: they are before every batch, not all at once.
    assert len(set(asked)) == len(asked)
    folder = home.scores / spec.fingerprint
    (kept,) = folder.glob("*.parquet")
    kept.unlink()
    asked.clear()
    leave_at = 3
    with pytest.raises(Enough):
        score_shard(shard, spec, home, check=check)
    assert len(asked) == 3
    assert not list(folder.glob("*"))
    # Nothing of it is left behind in the process: the next shard is scored, to the bit as before.
    assert score_shard(shard, spec, home).segment == undisturbed.segment
