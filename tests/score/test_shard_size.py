"""A shard is work for a short time, estimated from the model and the data alone."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
import tiny
from safetensors.torch import load_file

from assay.rewards.endpoint import Endpoint
from assay.rewards.local_spec import local_spec
from assay.rewards.remote.endpoints import served_spec
from assay.rewards.spec import LocalSpec
from assay.rewards.weights import multiplied_weights
from assay.score import shard_size
from assay.score.shard_size import CPU, GPU, Device, tokens_a_shard
from assay.score.ways import way_of

MILLION, BILLION = 10**6, 10**9


def model_of(folder: Path, weights: int) -> LocalSpec:
    return fakes.weighing(fakes.spec(folder), weights)


def seconds(tokens: int, weights: int, device: Device) -> float:
    return tokens * (2 * weights / device.operations_a_second + device.seconds_a_token)


@pytest.mark.parametrize("device", [CPU, GPU], ids=["CPU", "GPU"])
@pytest.mark.parametrize("weights", [0, MILLION, 100 * MILLION, 500 * MILLION, 8 * BILLION, 70 * BILLION])
@pytest.mark.parametrize("total", [1, 15_000, 300_000, 10 * MILLION, 2 * BILLION])
def test_a_shard_is_work_for_minutes_at_most(
    total: int, weights: int, device: Device, tmp_path: Path
) -> None:
    size = tokens_a_shard(total, model_of(tmp_path, weights), device)
    assert 1 <= size <= device.most_tokens
    # A token is not cut: with 70 billion weights it takes 2.8 s.
    assert seconds(size - 1, weights, device) <= device.most_seconds


@pytest.mark.parametrize("weights", [100 * MILLION, 500 * MILLION, 8 * BILLION])
def test_631_turns_on_a_cpu_are_many_shards(weights: int, tmp_path: Path) -> None:
    size = tokens_a_shard(213_000, model_of(tmp_path, weights), CPU)
    assert 213_000 / size >= 40


def test_little_work_is_one_shard_and_a_long_run_has_no_tiny_ones(tmp_path: Path) -> None:
    starter = local_spec("starter")
    assert tokens_a_shard(15_000, starter, CPU) == 15_000
    eight_billion = model_of(tmp_path, 8 * BILLION)
    # A day of an H100, at 25,000 tokens a second; today's shards of 262,144 tokens would be 8,240.
    day = 25_000 * 86_400
    assert day / tokens_a_shard(day, eight_billion, GPU) < 3_000


def test_a_total_is_shared_out_evenly(tmp_path: Path) -> None:
    spec = model_of(tmp_path, 100 * MILLION)
    whole = tokens_a_shard(10 * MILLION, spec, CPU)
    least = int(whole * CPU.least_seconds / CPU.most_seconds)
    assert tokens_a_shard(least * 8 // 5, spec, CPU) == pytest.approx(least * 0.8, abs=2)


def test_a_service_is_asked_in_shards_of_one_size() -> None:
    way = way_of(served_spec(Endpoint("there", "http://127.0.0.1:1/v1", "openai", "m", ("helpfulness",))))
    assert way.shard_tokens(10) == way.shard_tokens(BILLION) == shard_size.SERVICE_TOKENS


def test_weights_of_embeddings_are_not_multiplied(tmp_path: Path) -> None:
    spec = tiny.spec(tiny.reward_model(tmp_path / "model"))
    tensors = load_file(Path(spec.folder) / "model.safetensors")
    looked_up = tensors["model.embed_tokens.weight"].numel()
    assert looked_up > 10_000
    assert multiplied_weights(spec) == sum(tensor.numel() for tensor in tensors.values()) - looked_up
