"""Scoring is watched in Prefect's pages, and what a run did for its scores stays out of the cache."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import fakes
import handmade
import httpx
import pytest
from curate_runs import in_this_process
from handmade import Record
from prefect import flow
from stages import Heard

from assay.core.digests import digest_of_bytes
from assay.core.progress import Silent
from assay.score import ways
from assay.score.scoring import ScoringWork, ToScore
from assay.score.shard import ShardWork
from assay.storage.home import Home
from assay.storage.kept_manifests import Finished
from assay.storage.manifests import Scored
from assay.storage.stage import RunContext
from assay.workers.cluster import ClusterOptions
from tasks import score as task_module
from tasks.artifact_keys import Subject
from tasks.score import ShownInPrefect, score

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What was sent to Prefect's pages, by kind."""
    sent: dict[str, list[Any]] = {"begun": [], "updates": [], "tables": [], "about": []}

    def begun(percent: float, **about: object) -> UUID:
        sent["begun"].append(percent)
        return UUID(int=1)

    def table(rows: list[Any], **about: object) -> None:
        sent["tables"].append(rows)
        sent["about"].append(about["description"])

    monkeypatch.setattr(task_module, "create_progress_artifact", begun)
    monkeypatch.setattr(
        task_module,
        "update_progress_artifact",
        lambda artifact, progress, description: sent["updates"].append(progress),
    )
    monkeypatch.setattr(task_module, "create_table_artifact", table)
    return sent


def test_the_artifact_follows_now_and_then_and_ends_at_the_end(
    shown: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_module, "_UPDATE_SECONDS", 0.2)
    began = time.monotonic()
    with ShownInPrefect(Silent()) as progress:
        progress.begin("score", 1000, "turns")
        for _ in range(1000):
            progress.advance(1)
            time.sleep(0.0005)
    assert len(shown["begun"]) == 1
    assert len(shown["updates"]) <= 3 + (time.monotonic() - began) / 0.2
    assert shown["updates"][-1] == 100.0
    assert shown["updates"] == sorted(shown["updates"])


def test_nothing_is_shown_of_scoring_that_never_began(shown: dict[str, list[Any]]) -> None:
    with ShownInPrefect(Silent()):
        pass
    assert not shown["begun"]
    assert not shown["updates"]


def test_a_server_that_is_away_does_not_hold_up_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object, **about: object) -> None:
        time.sleep(0.3)
        raise httpx.ConnectError("away")

    monkeypatch.setattr(task_module, "_UPDATE_SECONDS", 0.1)
    monkeypatch.setattr(task_module, "create_progress_artifact", away)
    began = time.monotonic()
    with ShownInPrefect(Silent()) as progress:
        progress.begin("score", 100, "turns")
        for _ in range(100):
            progress.advance(1)
        assert time.monotonic() - began < 0.2


def test_a_table_of_shards_has_at_most_200_rows(shown: dict[str, list[Any]]) -> None:
    work = [ShardWork(n, "segment", 2, 0, 9, 0.1234, "w", "CPU") for n in range(500)]
    task_module._show_shards(work, Subject())
    (rows,) = shown["tables"]
    assert len(rows) == 200
    expected = {"shard": 0, "turns": 2, "failed": 0, "tokens": 9, "seconds": 0.12}
    assert rows[0] == {**expected, "worker": "w", "device": "CPU"}
    assert shown["about"] == ["Shards scored by this run: 500, of which the first 200 are shown"]


def test_only_the_run_that_did_the_work_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: dict[str, list[Any]]
) -> None:
    monkeypatch.setattr(ways, "workers_for", in_this_process)
    home = Home(tmp_path / "home")
    chats = [Record(n, (("user", f"q{n}"), ("assistant", f"a{n}"))) for n in range(1, 6)]
    converted = handmade.make(home, {"chat.jsonl": [chats]}).converted
    model = fakes.spec(tmp_path / "model", digest_of_bytes(bytes(tmp_path)))

    heard = Heard()

    @flow
    def scored() -> Finished[Scored]:
        return score(ToScore(converted, model, ClusterOptions(workers=1), 10), RunContext(home, heard))

    first = scored()
    (work,) = heard.works
    assert isinstance(work, ScoringWork)
    assert work.turns_scored == 5
    assert len(shown["tables"]) == 1
    (kept,) = home.manifests.iterdir()
    assert set(json.loads(kept.read_bytes())["manifest"]) == set(Scored.__dataclass_fields__)
    second = scored()
    assert second.cached
    assert len(heard.works) == 1
    assert second.manifest == first.manifest
    assert len(fakes.calls(Path(model.folder))) == 5

    (segment, *_) = home.scores.glob("*/*.parquet")
    # A result that is known reads none of the segment's values, so it does not look at them.
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1])
    assert scored().cached
    segment.unlink()
    third = scored()
    assert not third.cached
    work = heard.works[1]
    assert isinstance(work, ScoringWork)
    assert 0 < work.turns_scored <= 5
    assert third.manifest.pieces == first.manifest.pieces
