"""Scores gathered by anybody, in any order, are the same files; what is lost meanwhile is no gap in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import fakes
import polars as pl
import pytest
from job_doers import Backwards, Deadly
from scoring_runs import convert, records

from assay.core.errors import ClusterFault
from assay.core.jobs import IN_THIS_PROCESS, Workers
from assay.rewards.protocol import TurnScore
from assay.rewards.spec import LocalSpec
from assay.score import gathering, plan
from assay.score.gathering import gathered
from assay.score.segments import intact
from assay.score.store import KEY, ScoreStore
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored
from assay.storage.stage import RunContext


@pytest.fixture(autouse=True)
def _any_number_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_WORTH_WORKERS_TURNS", 0)
    monkeypatch.setattr(gathering, "_LEAST_TURNS", 1)
    monkeypatch.setattr(gathering, "_GROUPS", 3)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def model(tmp_path: Path) -> LocalSpec:
    """A model whose card names languages, so that something is marked."""
    return dataclasses.replace(fakes.spec(tmp_path / "model"), languages=("fr",), trained_tokens=3)


@pytest.fixture
def pieces(home: Home) -> Converted:
    """Six pieces, of which two hold the same conversations."""
    several = [records(4, first=10 * n) for n in range(5)]
    return convert(home, *several, several[2])


def stored(pieces: Converted, model: LocalSpec, home: Home, *, without: int = 0) -> dict[bytes, str]:
    """Store scores of all turns, in several segments. Returns reasons for so many that get none."""
    keys = plan.turns_of(pieces.pieces, 0, home)[KEY].unique(maintain_order=True).to_list()
    scores = {
        key: TurnScore(None, "not_finite: nan")
        if n % 7 == 3
        else TurnScore((n / 8, -n / 8), None, n % 2, 1 + n % 5)
        for n, key in enumerate(keys[without:])
    }
    store = ScoreStore(home, model.fingerprint, model.attributes)
    for start in range(0, len(scores), 9):
        store.write(dict(list(scores.items())[start : start + 9]))
    return dict.fromkeys(keys[:without], "out_of_memory: it does not fit")


def gather(
    pieces: Converted,
    model: LocalSpec,
    home: Home,
    folder: str,
    workers: Workers,
    unscored: Mapping[bytes, str],
) -> tuple[Scored, list[bytes]]:
    store = ScoreStore(home, model.fingerprint, model.attributes).open()
    scored = gathered(pieces, model, folder, unscored, store, RunContext(home, workers=workers))
    paths = [piece.scores.path for piece in scored.pieces]
    assert [path.partition("piece-")[2] for path in paths] == [f"{n:05}.parquet" for n in range(len(paths))]
    return scored, [(home.artifacts / path).read_bytes() for path in paths]


def test_whoever_gathers_in_whatever_order_makes_the_same_files(
    pieces: Converted, model: LocalSpec, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    unscored = stored(pieces, model, home, without=2)
    workers = Backwards()
    many, their_files = gather(pieces, model, home, "many", workers, unscored)
    assert len(workers.names) == 3
    monkeypatch.setattr(gathering, "_GROUPS", 1)
    one, files = gather(pieces, model, home, "one", IN_THIS_PROCESS, unscored)
    assert their_files == files
    assert dataclasses.replace(many, pieces=()) == dataclasses.replace(one, pieces=())
    assert (many.turns, many.distinct_turns) == (48, 40)
    values = pl.concat([pl.read_parquet(data) for data in files])
    assert many.failed == {"not_finite": values["reason"].str.starts_with("not").sum(), "out_of_memory": 2}
    assert len(many.segments) == 5
    assert many.warnings["other_language"] == 24
    assert 0 < many.warnings["beyond_trained_length"] < 24


def test_few_turns_are_gathered_without_workers(
    pieces: Converted, model: LocalSpec, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    unscored = stored(pieces, model, home)
    for least, asked in ((48, True), (49, False)):
        monkeypatch.setattr(gathering, "_WORTH_WORKERS_TURNS", least)
        workers = Backwards()
        gather(pieces, model, home, str(least), workers, unscored)
        assert bool(workers.names) == asked


def test_fewer_turns_are_worth_asking_workers_that_run_already(
    pieces: Converted, model: LocalSpec, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    unscored = stored(pieces, model, home)
    for least, are_running, asked in ((4 * 48, True, True), (4 * 49, True, False), (4 * 48, False, False)):
        monkeypatch.setattr(gathering, "_WORTH_WORKERS_TURNS", least)
        workers = Backwards(are_running=are_running)
        gather(pieces, model, home, f"{least} {are_running}", workers, unscored)
        assert bool(workers.names) == asked


def test_one_process_reads_each_segment_once_and_looks_up_as_planning_does(
    pieces: Converted, model: LocalSpec, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each group is looked up in the whole store, so more groups than planning has cost more for nothing."""
    unscored = stored(pieces, model, home)
    store = ScoreStore(home, model.fingerprint, model.attributes).open()
    store.stored(plan.turns_of(pieces.pieces, 0, home)[KEY].unique())
    looked_up: list[int] = []
    look_up = ScoreStore.look_up

    def counted(self: ScoreStore, keys: pl.Series) -> pl.DataFrame:
        looked_up.append(keys.len())
        return look_up(self, keys)

    monkeypatch.setattr(ScoreStore, "look_up", counted)
    monkeypatch.setattr(intact, "digest_of_file", lambda path: pytest.fail("read again"))
    gathered(pieces, model, "some", unscored, store, RunContext(home))
    assert looked_up == [40]


def test_a_worker_opens_the_store_once_for_all_its_groups(
    pieces: Converted, model: LocalSpec, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    unscored = stored(pieces, model, home)
    opened: list[int] = []
    open_store = ScoreStore.open

    def counted(self: ScoreStore) -> ScoreStore:
        opened.append(1)
        return open_store(self)

    monkeypatch.setattr(ScoreStore, "open", counted)
    for folder in ("one", "another"):
        gather(pieces, model, home, folder, Backwards(), unscored)
    # The run's own, and one of its workers.
    assert len(opened) == 4


@pytest.mark.parametrize("damage", ["gone", "one bit"])
def test_a_segment_that_is_lost_before_its_scores_are_read_is_no_gap_in_the_files(
    pieces: Converted, model: LocalSpec, home: Home, damage: str
) -> None:
    unscored = stored(pieces, model, home)
    victim = sorted(home.scores.rglob("*.parquet"))[0]
    content = bytearray(victim.read_bytes())
    victim.unlink()
    if damage == "one bit":
        content[len(content) // 2] ^= 4
        victim.write_bytes(content)
    with pytest.raises(ClusterFault, match=r"\d turns of gather chat.jsonl, piece \d have no score"):
        gather(pieces, model, home, "some", Backwards(), unscored)


def test_pieces_that_kill_every_worker_are_halved_and_the_one_is_named(
    pieces: Converted, model: LocalSpec, home: Home
) -> None:
    unscored = stored(pieces, model, home)
    with pytest.raises(ClusterFault, match=r"gather chat.jsonl, piece 0: every worker .*--workers N"):
        gather(pieces, model, home, "some", Deadly(), unscored)


def test_halves_of_a_job_are_the_job(pieces: Converted, model: LocalSpec, home: Home) -> None:
    job = gathering.GatherJob(2, pieces.pieces[2:5], model, "score/some", {}, home, "run")
    first, second = job.halves()
    assert isinstance(first, gathering.GatherJob)
    assert isinstance(second, gathering.GatherJob)
    assert (first.first, second.first) == (2, 3)
    assert (*first.pieces, *second.pieces) == job.pieces
    assert first.halves() == ()
