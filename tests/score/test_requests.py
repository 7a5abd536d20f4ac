"""Shards over a service: as many requests in flight as it allows, each turn once, what is paid for stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import handmade
import polars as pl
import pytest
import services
import stages
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from handmade import Record
from s3_replies import reply
from services import Answer, Asked, Server, rated
from stages import Heard

from assay.core.errors import Resumable
from assay.rewards.remote.endpoints import served_spec
from assay.score import requests, ways
from assay.score.scoring import ScoringWork
from assay.storage.home import Home
from assay.storage.manifests import Scored
from assay.storage.s3 import Objects, _client
from assay.workers.cluster import ClusterOptions

NO_WORKERS = ClusterOptions(workers=1)


@pytest.fixture
def server() -> Iterator[Server]:
    with services.serving() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def _no_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "workers_for", lambda *_, **__: pytest.fail("a cluster was started"))


def records(count: int) -> list[Record]:
    return [
        Record(n + 1, (("user", f"q{n}"), ("assistant", f"a{n}"), ("user", "more"), ("assistant", f"b{n}")))
        for n in range(count)
    ]


def score(
    server: Server,
    home: Home,
    count: int,
    *,
    shard_tokens: int = 8,
    leave_if_unwanted: Callable[[], None] = lambda: None,
    progress: Heard | None = None,
    **changes: Any,
) -> tuple[Scored, ScoringWork]:
    converted = handmade.make(home, {"chat.jsonl": [records(count)]}).converted
    model = served_spec(services.endpoint(server.url, **changes))
    return stages.score(
        converted,
        model,
        home=home,
        cluster=NO_WORKERS,
        shard_tokens=shard_tokens,
        progress=progress,
        leave_if_unwanted=leave_if_unwanted,
    )


def on_every_segment_put(do: Callable[[], AWSResponse | None]) -> None:
    """What that returns is S3's answer; of None, what S3 answers."""

    def put(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        return do() if request.url.endswith(".parquet") else None

    _client().meta.events.register("before-send.s3.PutObject", put)


def stored(home: Home) -> int:
    return sum(pl.read_parquet(path).height for path in home.scores.glob("*/*.parquet"))


def late(asked: Asked) -> Answer:
    answer = rated(asked)
    answer.delay = 0.15
    return answer


@pytest.mark.slow
def test_as_many_requests_are_in_flight_as_the_service_allows_however_small_the_shards(
    server: Server, home: Home
) -> None:
    server.answer = late
    began = time.monotonic()
    _, work = score(server, home, 40, in_flight=8)
    assert len(work.shards) >= 15
    assert server.most_at_once == 8
    assert time.monotonic() - began < 4 * 0.15 * 80 / 8
    assert work.turns_scored == 80
    assert len(server.paid) == len({one.body for one in server.paid}) == 80


def test_how_many_are_in_flight_and_how_shards_are_cut_changes_no_score(
    server: Server, home: Home, tmp_path: Path
) -> None:
    one, _ = score(server, home, 10, in_flight=1)
    other_home = Home(tmp_path / "other")
    other, _ = score(server, other_home, 10, in_flight=7, shard_tokens=1000)
    assert [p.scores.digest for p in one.pieces] == [p.scores.digest for p in other.pieces]


@pytest.mark.slow
def test_what_is_paid_for_is_stored_before_its_shard_is_whole(
    server: Server, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "CHECKPOINT_SECONDS", 0.1)
    seen: list[int] = []

    def answer(asked: Asked) -> Answer:
        found = rated(asked)
        if asked.last == "b9":
            found.delay = 0.8
            threading.Timer(0.6, lambda: seen.append(stored(home))).start()
        return found

    server.answer = answer
    score(server, home, 10, shard_tokens=1000)
    assert seen == [19]
    assert stored(home) == 20


def test_a_stop_keeps_the_finished_turns_of_unfinished_shards(server: Server, home: Home) -> None:
    def dies(asked: Asked) -> Answer:
        return rated(asked) if len(server.asked) <= 8 else Answer(b"", 429, {"Retry-After": "999"})

    server.answer = dies
    with pytest.raises(Resumable):
        score(server, home, 10, in_flight=1, shard_tokens=1000)
    assert stored(home) == 7
    server.answer = rated
    before = len(server.paid)
    _, work = score(server, home, 10, shard_tokens=1000)
    assert work.resumed_plan
    assert len(server.paid) - before == 20 - 7


@pytest.mark.slow
def test_a_run_that_is_stopped_keeps_what_it_has_paid_for(server: Server, home: Home) -> None:
    class Enough(Exception):
        pass

    def leave() -> None:
        if len(server.paid) >= 3:
            raise Enough

    server.answer = late
    with pytest.raises(Enough):
        score(server, home, 20, leave_if_unwanted=leave, in_flight=1, shard_tokens=1000)
    paid = len(server.paid)
    assert 3 <= paid <= 3 + 10, "it went on for more than a second"
    assert paid - 1 <= stored(home) <= paid
    score(server, home, 20, shard_tokens=1000)
    # The one that was under way may have been paid for and not heard.
    assert len(server.paid) <= 40 + 1


def test_nothing_missing_asks_nothing_not_even_the_probe(server: Server, home: Home) -> None:
    first, _ = score(server, home, 3)
    asked = len(server.asked)
    again, work = score(server, home, 3)
    assert again == first
    assert work.turns_scored == 0
    assert len(server.asked) == asked


def test_replies_are_heard_while_a_segment_is_put(server: Server, tmp_path: Path, bucket: str) -> None:
    slowly = [3.0]

    def wait_once() -> None:
        time.sleep(slowly.pop() if slowly else 0.0)

    on_every_segment_put(wait_once)
    server.answer = late
    scored, work = score(server, Home(tmp_path, bucket), 6, in_flight=4, timeout_seconds=2.0)
    assert not slowly
    assert work.turns_scored == 12
    assert not scored.failed
    assert len(server.paid) == 12


def test_a_store_that_refuses_at_the_end_hides_neither_what_stopped_the_run_nor_other_shards(
    server: Server, tmp_path: Path, bucket: str
) -> None:
    """Of two shards one turn each is rated when the service says that it is enough."""
    refused: list[AWSResponse] = []
    waiting: list[Asked] = []

    def refuse_once() -> AWSResponse | None:
        if refused:
            return None
        refused.append(reply("", 403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"))
        return refused[0]

    def answer(asked: Asked) -> Answer:
        if asked.last.startswith("a") or b"What is 1+1?" in asked.body:
            return rated(asked)
        waiting.append(asked)
        return Answer(delay=60) if len(waiting) == 1 else Answer(b"", 429, {"Retry-After": "999"})

    on_every_segment_put(refuse_once)
    server.answer = answer
    home = Home(tmp_path, bucket)
    heard = Heard()
    with pytest.raises(Resumable):
        score(server, home, 2, in_flight=2, shard_tokens=1, progress=heard)
    (line,) = [line for line in heard.lines if "could not be stored" in line]
    assert line.startswith("warning: 1 rated turn could not be stored: s3://")
    assert len([one for one in Objects(bucket).list_all("") if one.name.endswith(".parquet")]) == 1
