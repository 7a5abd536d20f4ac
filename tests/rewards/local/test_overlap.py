"""While one shard has the device, another is rendered and tokenized; no score depends on it."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fakes
import handmade
import numpy as np
import planning
import pytest
import tiny
import torch
from handmade import Record

from assay.core.schema import Message
from assay.rewards.local import continuing
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.protocol import Request
from assay.rewards.spec import LocalSpec
from assay.score import scoring
from assay.score.shard import score_shard
from assay.storage.home import Home

WAIT_SECONDS = 60


@pytest.fixture
def model(tmp_path: Path) -> LocalRewardModel:
    torch.set_num_threads(1)
    return LocalRewardModel(tiny.spec(tiny.reward_model(tmp_path / "model")))


def talk(number: int) -> Request:
    return Request((Message("user", f"question {number}"), Message("assistant", "so " * (number + 1))), (0,))


@pytest.mark.slow
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


@pytest.mark.slow
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
        written = planning.written(converted, spec, home, shard_tokens=200)
        shards = list(scoring.shards_of(written.parts(), converted))
        assert len(shards) > 8
        with ThreadPoolExecutor(threads) as pool:
            works.append(list(pool.map(lambda shard, home=home: score_shard(shard, spec, home), shards)))
        segments.append([work.segment for work in works[-1]])
        assert sum(work.turns for work in works[-1]) == 200
    assert segments[0] == segments[1]
    assert [work.tokens for work in works[0]] == [work.tokens for work in works[1]]
    assert all(work.device == "CPU" for work in works[0])
    assert sum(work.busy_seconds for work in works[1]) > 0


def test_busy_seconds_are_those_of_the_threads_own_last_call(model: LocalRewardModel) -> None:
    with ThreadPoolExecutor(1) as other:
        other.submit(model.score, [talk(number) for number in range(40)]).result()
        assert model.busy_seconds == 0
        model.score([talk(1)])
        ours = model.busy_seconds
        assert 0 < ours < other.submit(lambda: model.busy_seconds).result()
        # Nobody who has finished waits for who has the device.
        with model._device:
            assert other.submit(lambda: model.busy_seconds).result(WAIT_SECONDS) > ours


def test_states_are_read_where_they_are_though_the_model_begins_on_another_device(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model that is spread over several GPUs. Numbers on the meta device index nothing on the CPU."""
    prompt = Message("user", "fox and dog " * 40)
    answers = [Request((prompt, Message("assistant", f"{n} " + "rain " * n)), (0,)) for n in range(1, 5)]
    requests = [talk(1), talk(7), *answers]
    expected = model.score(requests)
    assert all(outcome.values for (outcome,) in expected)
    behind_a_beginning = []
    network, padded = model.network, model.network.padded
    begin, continued = network.begin, continuing.Beginnings.continued
    on_device = network.on_device

    def on_the_cpu(work: Any) -> Any:
        def done(*given: Any) -> Any:
            before = network.device
            monkeypatch.setattr(network, "device", torch.device("cpu"))
            try:
                return work(*given)
            finally:
                monkeypatch.setattr(network, "device", before)

        return done

    monkeypatch.setattr(network, "padded", on_the_cpu(padded))
    monkeypatch.setattr(network, "begin", on_the_cpu(begin))

    def continued_on_the_cpu(self: Any, owners: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        behind_a_beginning.append(owners)
        return continued(self, torch.zeros(owners.shape, dtype=torch.int64), token_ids)

    monkeypatch.setattr(continuing.Beginnings, "continued", continued_on_the_cpu)
    monkeypatch.setattr(network, "device", torch.device("meta"))
    assert on_device(np.arange(3)).device.type == "meta"
    assert model.score(requests) == expected
    assert behind_a_beginning


class Counted(fakes.Fake):
    """Knows how many of its kind are open."""

    open: ClassVar[weakref.WeakSet[Counted]] = weakref.WeakSet()
    most = 0
    made = 0

    def __init__(self, spec: LocalSpec) -> None:
        super().__init__(spec)
        gc.collect()
        Counted.open.add(self)
        Counted.most = max(Counted.most, len(Counted.open))
        Counted.made += 1


@pytest.mark.slow
def test_threads_that_want_different_models_never_have_two_open(tmp_path: Path) -> None:
    specs = [
        dataclasses.replace(
            fakes.spec(tmp_path / f"model-{n}", fingerprint=f"{n}" * 32), opener="test_overlap:Counted"
        )
        for n in range(2)
    ]
    home = Home(tmp_path / "home")
    records = [Record(n + 1, (("user", f"{n}"), ("assistant", fakes.SLOW))) for n in range(3)]
    converted = handmade.make(home, {"chat.jsonl": [records]}).converted
    shards = []
    for spec in specs:
        written = planning.written(converted, spec, home, shard_tokens=1)
        shards.append([(shard, spec) for shard in scoring.shards_of(written.parts(), converted)])
    work = [shard for of_both in zip(*shards, strict=True) for shard in of_both]
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda one: score_shard(one[0], one[1], home), work))
    assert sum(one.turns for one in done) == 6
    assert Counted.made >= 2
    assert Counted.most == 1
