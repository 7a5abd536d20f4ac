"""Progress moves with each batch, and ends at the number of turns, whatever becomes of a shard."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from curate_runs import in_this_process
from hypothesis import given
from hypothesis import strategies as st
from scoring_runs import convert, records
from stages import Heard

from assay.core.progress import Silent
from assay.rewards.batch_reports import batch_done, reporting
from assay.score import ways
from assay.score.scoring import ToScore, score
from assay.score.ways import _Moved
from assay.storage.home import Home
from assay.storage.stage import RunContext
from assay.workers import in_worker
from assay.workers.cluster import ClusterOptions


class Counting(Silent):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.turns = 0
        self.tokens = 0.0

    def advance(self, count: int = 1, **details: object) -> None:
        assert count >= 0
        self.turns += count
        tokens = details.get("tokens", 0)
        assert isinstance(tokens, int)
        assert tokens >= 0
        self.tokens += tokens


def test_a_batch_is_reported_to_whom_it_concerns() -> None:
    heard: list[tuple[int, int]] = []
    batch_done(1, 2)
    with reporting(lambda turns, tokens: heard.append((turns, tokens))):
        batch_done(3, 40)
        with reporting(lambda turns, tokens: None):
            batch_done(5, 60)
        batch_done(7, 80)
    batch_done(9, 99)
    assert heard == [(3, 40), (7, 80)]


def test_progress_moves_before_the_shard_ends_and_counts_no_turn_twice() -> None:
    counted = Counting()
    moved = _Moved(20, counted)
    moved.by_batch(6, 600)
    assert counted.turns == 6
    moved.by_shard(10, 1000, failed=0)
    assert (counted.turns, counted.tokens) == (10, 1000)
    moved.by_shard(10, 900, failed=1)
    assert (counted.turns, counted.tokens) == (20, 1900)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=6)), min_size=1, max_size=8)
)
def test_progress_ends_at_the_number_of_turns(shards: list[tuple[int, list[int]]]) -> None:
    """Batches are lost, or heard twice where a worker dies: more or fewer of them than the shard's turns."""
    counted = Counting()
    total = sum(turns for turns, _ in shards)
    moved = _Moved(total, counted)
    for turns, batches in shards:
        for batch in batches:
            moved.by_batch(batch, 1)
            assert counted.turns < total
        moved.by_shard(turns, 1)
        assert counted.turns <= total
    assert counted.turns == total


class Moves(Heard):
    """Remembers every step, and how many there were when a shard had ended."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def advance(self, count: int = 1, **details: object) -> None:
        self.steps.append(count)


@pytest.mark.slow
def test_a_run_of_one_shard_moves_more_than_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "workers_for", in_this_process)
    monkeypatch.setattr(in_worker, "_BATCHES_SECONDS", 0.0)
    home = Home(tmp_path / "home")
    model = tiny.spec(tiny.reward_model(tmp_path / "model"))
    # Every text differs from its beginning on, so that no two conversations share one.
    converted = convert(home, [one for n in range(40) for one in records(1, mark=f"{n}", first=n)])
    heard = Moves()
    score(ToScore(converted, model, ClusterOptions(workers=1), 1_000_000), RunContext(home, heard))
    assert sum(heard.steps) == converted.pieces[0].turn_count == 80
    assert len([step for step in heard.steps if step]) > 1
