"""Workers are placed on groups of GPUs, and one whose GPU is lost is replaced. No GPU is needed here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import fakes
import handmade
import psutil
import pytest
from handmade import Record
from hypothesis import given
from hypothesis import strategies as st

from assay import scoring
from assay.cluster import ClusterOptions, gpu_groups, grouped_cluster
from assay.errors import DeviceLost, UserMistake
from assay.home import Home
from assay.rewards.protocol import ModelSpec, Request, TurnScore

BREAKS = "breaks the device"


@given(st.integers(1, 40), st.integers(1, 10))
def test_groups_are_of_the_size_asked_for_and_share_no_device(count: int, size: int) -> None:
    devices = [str(number) for number in range(count)]
    if count < size:
        with pytest.raises(UserMistake, match=f"this machine shows {count} GPUs"):
            gpu_groups(devices, size)
        return
    groups = gpu_groups(devices, size)
    assert len(groups) == count // size
    assert {len(group) for group in groups} == {size}
    assert [device for group in groups for device in group] == devices[: len(groups) * size]


def test_devices_keep_the_names_that_the_operator_gave() -> None:
    assert gpu_groups(["3", "GPU-8932f937", "1", "2"], 2) == [("3", "GPU-8932f937"), ("1", "2")]


def seen() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_each_worker_sees_its_group_alone() -> None:
    from distributed import Client, Security

    with (
        grouped_cluster([("0", "1"), ("2", "3")], Security.temporary()) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        assert sorted(client.run(seen).values()) == ["0,1", "2,3"]


class Breaking(fakes.Fake):
    """Loses its device at a text that says so, once, or every time where that says ``always``."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._broken = Path(spec.folder) / "broken"
        self._lost = False

    def score(self, requests: Sequence[Request]) -> list[list[TurnScore]]:
        texts = " ".join(message.content for request in requests for message in request.messages)
        if BREAKS in texts and ("always" in texts or not self._broken.exists()):
            self._broken.write_text(str(os.getpid()))
            self._lost = True
        if self._lost:
            raise DeviceLost("the GPU is lost to this process: CUDA error: an illegal memory access")
        return super().score(requests)


def broken_model(folder: Path) -> ModelSpec:
    import dataclasses

    return dataclasses.replace(fakes.spec(folder), opener="test_cluster:Breaking")


@pytest.mark.parametrize("text", [BREAKS, f"always {BREAKS}"])
def test_a_worker_that_lost_its_device_is_replaced_and_the_rest_is_scored(tmp_path: Path, text: str) -> None:
    records = [Record(n + 1, (("user", f"question {n}"), ("assistant", f"answer {n}"))) for n in range(6)]
    records.insert(3, Record(9, (("user", text), ("assistant", "yes"))))
    home = Home(tmp_path / "home")
    converted = handmade.make(home, {"chat.jsonl": [records]}).converted
    scored, work = scoring.score(
        converted,
        broken_model(tmp_path / "model"),
        home=home,
        cluster=ClusterOptions(workers=1),
        shard_tokens=12,
    )
    if "always" in text:
        assert scored.failed == {"killed_workers": 1}
        assert work.turns_scored == 6
    else:
        assert scored.failed == {}
        assert work.turns_scored == 7
    broken = int((tmp_path / "model" / "broken").read_text())
    assert not psutil.pid_exists(broken), "the broken process went on"
