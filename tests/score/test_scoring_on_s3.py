"""With the store on S3 a run scores what a run with a folder scores, once, whoever is killed and when."""

from __future__ import annotations

import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import fakes
import polars as pl
import psutil
import pytest
import stages
from handmade import Record
from scoring_runs import Spawn, chat, convert, gone, records, score, store_files, values, wait
from stages import Heard

from assay.core import errors
from assay.rewards.spec import LocalSpec
from assay.score import scoring, ways
from assay.score.segments import lease
from assay.score.shard import Shard, requested
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored
from assay.storage.s3 import Objects

SHORT = 4.0


@pytest.fixture
def home(tmp_path: Path, bucket: str) -> Home:
    return Home(tmp_path / "home", bucket)


@pytest.fixture
def model(tmp_path: Path) -> LocalSpec:
    return fakes.spec(tmp_path / "model")


def stored(home: Home, model: LocalSpec) -> dict[str, bytes]:
    """Name and content of every segment on S3."""
    assert home.score_store is not None
    objects = Objects(home.score_store).below(model.fingerprint)
    found = {one.name: objects.read(one.name) for one in objects.list() if one.name.endswith(".parquet")}
    return {name: content.data for name, content in found.items() if content is not None}


def in_a_folder(
    tmp_path: Path, model: LocalSpec, conversations: list[Record]
) -> tuple[Scored, dict[str, bytes]]:
    """What the same conversations come to with the store in a folder."""
    folder = Home(tmp_path / "folder")
    scored, _ = score(convert(folder, conversations), model, folder)
    return scored, store_files(folder)


def test_scores_and_segments_are_those_of_a_store_in_a_folder(
    home: Home, model: LocalSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = convert(home, records(20))
    scored, work = score(converted, model, home)
    assert work.turns_scored == 40
    assert not home.scores.exists()
    expected, segments = in_a_folder(tmp_path, model, records(20))
    assert scored == expected
    assert stored(home, model) == segments
    assert len(segments) > 1

    monkeypatch.setattr(ways, "workers_for", lambda *_, **__: pytest.fail("a cluster was started"))
    again, work = score(converted, model, home)
    assert (again, work.turns_scored) == (scored, 0)
    elsewhere = Home(tmp_path / "elsewhere", home.score_store)
    converted = convert(elsewhere, records(20))
    assert scoring.preview(converted, model, home=elsewhere).missing_turns == 0
    third, work = score(converted, model, elsewhere)
    assert (third, work.turns_scored) == (scored, 0)
    assert stages.scores_are_current(converted, model, third, elsewhere)


@pytest.mark.faults
def test_a_damaged_segment_is_scored_again_by_the_plan_that_made_it(home: Home, model: LocalSpec) -> None:
    converted = convert(home, records(20))
    scored, _ = score(converted, model, home)
    before = stored(home, model)
    victim = min(before)
    assert home.score_store is not None
    Objects(home.score_store).below(model.fingerprint).put(victim, before[victim][:-20])
    (home.copies / model.fingerprint / victim).unlink()
    heard = Heard()
    again, work = score(converted, model, home, heard=heard)
    assert again == scored
    assert 0 < work.turns_scored < 40
    assert sum("damaged" in line and victim in line for line in heard.lines) == 1
    assert stored(home, model) == before


def _score_in_child(
    converted: Converted,
    model: LocalSpec,
    home: Home,
    told: multiprocessing.Queue[str],
    lease_seconds: float = SHORT,
) -> None:
    lease.LEASE_SECONDS = lease_seconds
    os.setpgid(0, 0)
    try:
        score(converted, model, home)
    except errors.Resumable as stopped:
        told.put(str(stopped))


@pytest.fixture
def told() -> multiprocessing.Queue[str]:
    return multiprocessing.get_context("spawn").Queue()


@pytest.mark.faults
def test_a_second_run_waits_for_the_first_and_scores_nothing_twice(
    home: Home, model: LocalSpec, spawn: Spawn, told: object
) -> None:
    shared = records(20, mark=fakes.SLOW)
    child = spawn(_score_in_child, convert(home, shared), model, home, told, 30.0)
    wait(lambda: (home.plans / model.fingerprint).exists())
    heard = Heard()
    # Another machine: of the first it sees the bucket alone.
    other = Home(home.root.parent / "other", home.score_store)
    _, work = score(convert(other, [*shared, *records(2, first=60)]), model, other, heard=heard)
    child.join(60)
    calls = fakes.calls(Path(model.folder))
    assert len(calls) == len(set(calls)) == 44
    assert work.turns_scored == 4
    assert any(f"pid {child.pid}) is scoring with this model; waiting" in line for line in heard.lines)


@pytest.mark.faults
def test_a_killed_run_is_taken_over_when_its_lease_is_up_and_only_what_is_missing_is_scored(
    home: Home,
    model: LocalSpec,
    tmp_path: Path,
    spawn: Spawn,
    told: object,
) -> None:
    conversations = records(60, mark=fakes.SLOW)
    converted = convert(home, conversations)
    child = spawn(_score_in_child, converted, model, home, told)
    wait(lambda: len(stored(home, model)) >= 3)
    assert child.pid is not None
    family = psutil.Process(child.pid).children(recursive=True)
    os.killpg(child.pid, signal.SIGKILL)
    child.join()
    wait(partial(gone, family), 20)
    finished = sum(pl.read_parquet(data).height for data in stored(home, model).values())
    before = len(fakes.calls(Path(model.folder)))
    heard = Heard()
    scored, work = score(converted, model, home, heard=heard)
    assert work.resumed_plan
    # What a worker sent before it died may have arrived after they were counted.
    assert 0 < work.turns_scored <= 120 - finished
    assert len(fakes.calls(Path(model.folder))) - before == work.turns_scored
    assert any(f"pid {child.pid}) was silent for {SHORT:.0f} s; taking over" in line for line in heard.lines)
    expected, segments = in_a_folder(tmp_path, model, conversations)
    assert (scored, stored(home, model)) == (expected, segments)


@pytest.mark.faults
def test_a_run_that_lost_its_lease_ends_resumably_and_harms_nothing(
    home: Home,
    model: LocalSpec,
    spawn: Spawn,
    told: multiprocessing.Queue[str],
) -> None:
    conversations = records(40, mark=fakes.SLOW)
    converted = convert(home, conversations)
    child = spawn(_score_in_child, converted, model, home, told)
    wait(lambda: len(stored(home, model)) >= 2)
    assert child.pid is not None
    # Its workers go on, as those of a scheduler elsewhere would.
    os.kill(child.pid, signal.SIGSTOP)
    other = Home(home.root.parent / "other", home.score_store)
    heard = Heard()
    scored, _ = score(convert(other, conversations), model, other, heard=heard)
    assert any("was silent for" in line for line in heard.lines)
    assert values(scored, other)["helpfulness"].null_count() == 0
    os.kill(child.pid, signal.SIGCONT)
    assert "the same command goes on from there" in told.get(timeout=60)
    child.join(60)
    again, work = score(converted, model, home)
    assert work.turns_scored == 0
    assert [one.scores.digest for one in again.pieces] == [one.scores.digest for one in scored.pieces]


def test_a_shard_carries_what_its_files_hold(home: Home, model: LocalSpec) -> None:
    grown = [("x" * n, "y" * n) for n in (1, 2, 3)]
    pieces = [[Record(n, chat(*texts)) for n, texts in enumerate(grown)], records(3, first=9)]
    converted = convert(home, *pieces)
    members = pl.DataFrame(
        {"piece": [0, 0, 1], "row": [0, 2, 0], "turn": [0, 0, 1]},
        schema_overrides={"piece": pl.UInt32, "row": pl.UInt32, "turn": pl.UInt32},
    )
    turns = [
        pl.read_parquet(home.artifacts / piece.turns.path).select(
            pl.lit(number, pl.UInt32).alias("piece"), "row", "turn", "key"
        )
        for number, piece in enumerate(converted.pieces)
    ]
    members = members.join(
        pl.concat(turns), on=["piece", "row", "turn"], how="left", maintain_order="left"
    ).select("piece", "row", "turn", "key")
    files = {number: piece.records for number, piece in enumerate(converted.pieces)}
    shard = Shard(0, members, files, 10)
    nowhere = Home(Path("/nonexistent"))
    assert requested(shard.carrying(home), nowhere) == requested(shard, home)


@pytest.mark.faults
def test_a_record_that_kills_every_worker_is_found_in_a_shard_of_several_pieces(
    home: Home, model: LocalSpec
) -> None:
    bad = records(1, mark=fakes.POISON, first=1)
    converted = convert(home, [*records(1), *bad], records(2, first=9))
    scored, work = score(converted, model, home, shard_tokens=10_000)
    assert scored.failed == {"killed_workers": 2}
    assert work.turns_scored == 6
    frame = values(scored, home)
    assert frame.filter(pl.col("reason").is_not_null()).height == 2


@pytest.mark.faults
def test_the_run_ends_with_one_line_where_s3_goes_away_and_goes_on_from_there(
    home: Home, model: LocalSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = convert(home, records(20))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(errors.StoreFault, match=r"worker on .*: .*\.parquet: cannot be written: Could not"):
        score(converted, model, home)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    _, work = score(converted, model, home)
    assert (work.turns_scored, work.resumed_plan) == (40, True)
