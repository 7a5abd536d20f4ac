"""While one shard has the device, another is rendered and tokenized; no score depends on it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import handmade
import pytest
import tiny
import torch
from handmade import Record

from assay import plan, scoring
from assay.home import Home
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.protocol import Request
from assay.schema import Message
from assay.shard import score_shard
from assay.store import ScoreStore

WAIT_SECONDS = 60


@pytest.fixture
def model(tmp_path: Path) -> LocalRewardModel:
    torch.set_num_threads(1)
    return LocalRewardModel(tiny.spec(tiny.reward_model(tmp_path / "model")))


def talk(number: int) -> Request:
    return Request((Message("user", f"question {number}"), Message("assistant", "so " * (number + 1))), (0,))


def test_a_shard_is_rendered_while_another_has_the_device(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, render = model.network.hidden, model.renderer.render
    on_device, both_rendered = threading.Event(), threading.Event()
    rendered: list[Any] = []
    computing = []

    def held_up(*given: Any) -> torch.Tensor:
        computing.append(threading.current_thread())
        assert len(set(computing)) == 1, "two threads had the device at a time"
        on_device.set()
        assert both_rendered.wait(WAIT_SECONDS), "nothing was rendered while the device was at work"
        time.sleep(0.5)  # the other thread is now free to come here, if nothing holds it back
        states = hidden(*given)
        computing.clear()
        return states

    def noted(requests: Any) -> Any:
        results = render(requests)
        rendered.append(results)
        if len(rendered) == 2:
            both_rendered.set()
        return results

    monkeypatch.setattr(model.network, "hidden", held_up)
    monkeypatch.setattr(model.renderer, "render", noted)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(model.score, [talk(1)])
        assert on_device.wait(WAIT_SECONDS)
        second = threads.submit(model.score, [talk(2)])
        outcomes = [first.result(), second.result()]
    monkeypatch.undo()
    assert outcomes == [model.score([talk(1)]), model.score([talk(2)])]


def test_shards_scored_by_several_threads_of_a_worker_give_the_same_segments(tmp_path: Path) -> None:
    spec = tiny.spec(tiny.reward_model(tmp_path / "model"))
    records = [
        Record(n + 1, (("user", f"question {n}"), ("assistant", "so " * (n % 40 + 1)))) for n in range(200)
    ]
    segments = []
    works = []
    for threads in (1, 4):
        home = Home(tmp_path / f"home-{threads}")
        converted = handmade.make(home, {"chat.jsonl": [records]}).converted
        store = ScoreStore(home, spec.fingerprint, spec.attributes)
        missing = plan.unstored(converted, store.open(warn=None), home)
        written = plan.write(missing, converted, spec, home, shard_tokens=200)
        shards = list(scoring._shards(written.turns(), converted))
        assert len(shards) > 8
        with ThreadPoolExecutor(threads) as pool:
            works.append(list(pool.map(lambda shard, home=home: score_shard(shard, spec, home), shards)))
        segments.append([work.segment for work in works[-1]])
        assert sum(work.turns for work in works[-1]) == 200
    assert segments[0] == segments[1]
    assert [work.tokens for work in works[0]] == [work.tokens for work in works[1]]
    assert all(work.device == "CPU" for work in works[0])
    assert sum(work.busy_seconds for work in works[1]) > 0


def test_busy_seconds_are_told_once(model: LocalRewardModel) -> None:
    model.score([talk(1)])
    assert model.taken_busy_seconds() > 0
    assert model.taken_busy_seconds() == 0
