"""How many workers there are by default, and of what size a model is before it is loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import tiny_families as families
import transformers

from assay import cluster
from assay.cluster import ClusterOptions, connected
from assay.rewards.weights import weights_bytes


@pytest.mark.parametrize(
    ("free", "model", "workers", "told"),
    [
        (64e9, 0, 8, None),
        (64e9, 7e9, 8, None),
        (
            64e9,
            15e9,
            4,
            "4 workers on 8 cores: 64.0 GB of memory are free, and each takes 15.0 GB for the model",
        ),
        (20e9, 15e9, 1, "1 worker on 8 cores: 20.0 GB"),
        (8e9, 15e9, 1, "1 worker on 8 cores: 8.0 GB"),
    ],
)
def test_there_are_no_more_workers_than_models_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, free: float, model: float, workers: int, told: str | None
) -> None:
    said: list[str] = []
    monkeypatch.setattr(cluster, "usable_cores", lambda: 8)
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 1 << 50)
    monkeypatch.setattr(cluster.psutil, "virtual_memory", lambda: SimpleNamespace(available=int(free)))
    assert cluster._as_many_as_fit(int(model), said.append) == workers
    assert len(said) == (told is not None)
    if told is not None:
        assert said[0].startswith(told)


def test_a_number_of_workers_that_is_asked_for_is_not_questioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "visible_devices", list)
    said: list[str] = []
    with connected(ClusterOptions(workers=2, model_bytes=1 << 50), say=said.append) as client:
        assert client.scheduler_info(n_workers=0)["n_workers"] == 2
    assert said == []


def test_a_models_size_is_told_in_the_precision_that_it_is_computed_in(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    values = sum(parameter.numel() for parameter in loaded.parameters())
    assert weights_bytes(tiny.spec(folder)) == 4 * values
    assert weights_bytes(tiny.spec(folder, dtype="bfloat16")) == 2 * values


def test_weights_of_several_files_are_added_up_and_what_is_none_counts_nothing(tmp_path: Path) -> None:
    spec = families.gated(tmp_path / "model", "chatml").spec
    before = weights_bytes(spec)
    content = (Path(spec.folder) / "model.safetensors").read_bytes()
    (Path(spec.folder) / "second.safetensors").write_bytes(content)
    (Path(spec.folder) / "broken.safetensors").write_bytes(b"\xff" * 20)
    (Path(spec.folder) / "empty.safetensors").write_bytes(b"")
    assert weights_bytes(spec) == 2 * before > 0
