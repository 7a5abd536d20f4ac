"""Workers are placed on groups of GPUs, and one whose GPU is lost is replaced. No GPU is needed here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakes
import handmade
import psutil
import pytest
import stages
from handmade import Record
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE_SECONDS
from stages import Heard
from without_gpus import show_devices

from assay.core.errors import ClusterFault, DeviceLost, UserMistake
from assay.rewards.protocol import Request, TurnScore
from assay.rewards.spec import LocalSpec
from assay.storage.home import Home
from assay.workers import cluster, gpus
from assay.workers.cluster import ClusterOptions, connected
from assay.workers.environment import EXPECTS_CUDA, usable_cores
from assay.workers.gpus import gpu_cluster, gpu_groups, visible_devices

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


LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6)
  MIG 1g.10gb     Device  0: (UUID: MIG-8eb0e153-bca0-56e4-8ad4-3a0a2e1d1b29)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-6f0c2b4e-0000-4106-c12f-20bd9faed9f6)
GPU 2: NVIDIA L4 (UUID: GPU-6f0c99aa-0000-4106-c12f-20bd9faed9f6)
"""


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An ``nvidia-smi`` that does what the script says."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("-1", []),
        ("none", []),
        ("1,0", ["1", "0"]),
        ("0,-1,2", ["0"]),
        ("0,5,2", ["0"]),
        ("2, 1", ["2", "1"]),
        ("1,1,0", ["1", "0"]),
        ("GPU-6f0c99aa-0000-4106-c12f-20bd9faed9f6, GPU-8932f937", ["2", "0"]),
        ("GPU-6f0c", []),
        ("MIG-8eb0e153-bca0-56e4-8ad4-3a0a2e1d1b29", ["MIG-8eb0e153-bca0-56e4-8ad4-3a0a2e1d1b29"]),
        ("1,MIG-8eb0e153-bca0-56e4-8ad4-3a0a2e1d1b29", ["1"]),
        ("MIG-00000000-0000-0000-0000-000000000000", []),
    ],
)
def test_devices_are_those_that_the_driver_lists_and_the_user_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: list[str]
) -> None:
    driver(tmp_path, monkeypatch, f"cat <<'END'\n{LISTED}END")
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_devices() == expected


@pytest.mark.parametrize(
    "script", ["exit 9", "echo 'Failed to initialize NVML: Driver/library mismatch'; exit 18"]
)
def test_what_no_driver_lists_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    driver(tmp_path, monkeypatch, script)
    assert visible_devices() == []


def test_a_driver_that_hangs_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(gpus, "_LISTING_SECONDS", 0.2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(
        ClusterFault, match=r"did not answer within .* Set CUDA_VISIBLE_DEVICES= to score on the CPU"
    ):
        visible_devices()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []


def seen(dask_worker: Any) -> dict[str, Any]:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "RAYON_NUM_THREADS", EXPECTS_CUDA)
    return {
        "environment": {name: os.environ.get(name) for name in names},
        "threads": dask_worker.state.nthreads,
        "limit": dask_worker.memory_manager.memory_limit,
        "address": dask_worker.address,
    }


def hostile_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user's shell may have set, and Dask's own settings would yield to."""
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "0")


def assert_fit_for_a_gpu(worker: dict[str, Any]) -> None:
    assert worker["environment"]["OMP_NUM_THREADS"] == "1"
    assert worker["environment"]["HF_HUB_OFFLINE"] == "1"
    assert worker["environment"]["RAYON_NUM_THREADS"] == str(max(1, usable_cores() // 2))
    assert worker["environment"][EXPECTS_CUDA] == "1"
    assert worker["threads"] == 2
    assert worker["limit"] is None
    assert worker["address"].startswith("tls://127.0.0.1:")


@pytest.mark.slow
def test_each_worker_of_a_group_sees_its_group_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client, Security

    hostile_shell(monkeypatch)
    with (
        gpu_cluster([("0", "1"), ("2", "3")], Security.temporary()) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=PATIENCE_SECONDS)
        workers = list(client.run(seen).values())
    assert sorted(one["environment"]["CUDA_VISIBLE_DEVICES"] for one in workers) == ["0,1", "2,3"]
    for worker in workers:
        assert_fit_for_a_gpu(worker)


@pytest.mark.slow
def test_there_is_a_worker_a_gpu_that_sees_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile_shell(monkeypatch)
    show_devices(["3", "1", "0"], monkeypatch)
    with connected(ClusterOptions(workers=2)) as client:
        workers = list(client.run(seen).values())
        assert sorted(one["environment"]["CUDA_VISIBLE_DEVICES"] for one in workers) == ["1", "3"]
    for worker in workers:
        assert_fit_for_a_gpu(worker)


@pytest.mark.slow
def test_workers_on_cpus_have_no_limit_that_weights_would_count_towards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "visible_devices", list)
    with connected(ClusterOptions(workers=1)) as client:
        (worker,) = client.run(seen).values()
    assert worker["limit"] is None
    assert worker["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert worker["environment"][EXPECTS_CUDA] is None


@pytest.mark.slow
def test_gpus_without_the_packages_for_them_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(cluster, "packages_are_here", lambda: False)
    monkeypatch.setattr(cluster, "visible_devices", lambda: ["0", "1"])
    with connected(ClusterOptions(workers=1), Heard(said.append)) as client:
        (worker,) = client.run(seen).values()
    assert worker["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert said == [
        "2 GPUs are here, but the packages for them are missing: scoring on the CPU. "
        "Install them with pip install -e '.[gpu]'"
    ]


class Breaking(fakes.Fake):
    """Loses its device at a text that says so, once, or every time where that says ``always``."""

    def __init__(self, spec: LocalSpec) -> None:
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


def broken_model(folder: Path) -> LocalSpec:
    import dataclasses

    return dataclasses.replace(fakes.spec(folder), opener="test_gpus:Breaking")


@pytest.mark.parametrize("text", [BREAKS, f"always {BREAKS}"])
@pytest.mark.faults
def test_a_worker_that_lost_its_device_is_replaced_and_the_rest_is_scored(tmp_path: Path, text: str) -> None:
    records = [Record(n + 1, (("user", f"question {n}"), ("assistant", f"answer {n}"))) for n in range(6)]
    records.insert(3, Record(9, (("user", text), ("assistant", "yes"))))
    home = Home(tmp_path / "home")
    converted = handmade.make(home, {"chat.jsonl": [records]}).converted
    scored, work = stages.score(
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
