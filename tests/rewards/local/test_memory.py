"""The budget that is found by trying, and what CUDA's errors mean. CUDA is played here by exceptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.core.errors import DeviceLost, ModelFault
from assay.core.schema import Message
from assay.rewards.local import model as local
from assay.rewards.local.batching import cost, largest_fitting
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local.network import _check_places
from assay.rewards.protocol import Request
from assay.workers.environment import EXPECTS_CUDA

TALK = Request((Message("user", "Hi"), Message("assistant", "Hello")), (0,))


@pytest.fixture
def model(tmp_path: Path) -> LocalRewardModel:
    torch.set_num_threads(1)
    return LocalRewardModel(tiny.spec(tiny.reward_model(tmp_path / "model", max_tokens=2048)))


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 12), st.integers(1, 1 << 18))
def test_the_budget_found_fits_with_room_and_is_the_largest_such(
    memory: int, first: int, ceiling: int
) -> None:
    found = largest_fitting(lambda tokens: tokens <= memory, first=first, ceiling=ceiling)
    assert found == first or found * 5 // 4 <= memory
    assert found <= max(first, ceiling)
    assert found * 2 > ceiling or found * 2 * 5 // 4 > memory
    assert (found // first).bit_count() == 1


def remembering(model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch, most: int) -> list[tuple[int, ...]]:
    """A device on which a batch that costs more than ``most`` does not fit."""
    hidden = model.network.hidden
    tried: list[tuple[int, ...]] = []

    def limited(token_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        tried.append(tuple(token_ids.shape))
        if cost(*token_ids.shape) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return hidden(token_ids[:, :8], mask)

    monkeypatch.setattr(model.network, "hidden", limited)
    return tried


def test_calibration_tries_ever_smaller_batches_until_one_fits(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = remembering(model, monkeypatch, most=25_000)
    model.calibrate(ceiling=1 << 17)
    assert model.batch_tokens == 16_384
    usual, longest = cost(1, 1024), cost(1, 2048)
    assert tried == [
        (163_840 // usual, 1024),
        (81_920 // usual, 1024),
        (40_960 // usual, 1024),
        (20_480 // usual, 1024),
        (20_480 // longest, 2048),
    ], "as many usual rows as the budget holds, and as many of the longest"


def test_calibration_ends_at_its_ceiling_and_never_below_where_it_began(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembering(model, monkeypatch, most=1 << 30)
    model.calibrate(ceiling=20_000)
    assert model.batch_tokens == 16_384
    remembering(model, monkeypatch, most=1)
    model.batch_tokens = 4096
    model.calibrate(ceiling=1 << 18)
    assert model.batch_tokens == 4096


def test_a_cpu_is_never_calibrated(model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: Any, **options: Any) -> None:
        raise AssertionError("calibrated on a CPU")

    monkeypatch.setattr(LocalRewardModel, "calibrate", forbidden)
    local.open_model(model.spec)


def test_a_process_that_was_started_for_a_gpu_does_not_score_on_the_cpu(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(EXPECTS_CUDA, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ModelFault, match=r"CUDA_VISIBLE_DEVICES=3\), and torch .* cannot use it"):
        local.open_model(model.spec)


def test_a_model_that_its_gpus_do_not_hold_is_refused(model: LocalRewardModel) -> None:
    _check_places(model.spec, {"model.layers.0": 0, "model.layers.1": 1})
    with pytest.raises(
        ModelFault, match=r"would lie on cpu and disk; give it more with ASSAY_GPUS_PER_MODEL"
    ):
        _check_places(model.spec, {"model.layers.0": 0, "model.layers.1": "cpu", "score": "disk"})


def failing(model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(model, "_forward", fail)


def test_an_error_of_cuda_loses_the_device(model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(model, monkeypatch, "CUDA error: an illegal memory access was encountered\nCompile with …")
    with pytest.raises(DeviceLost, match=r"illegal memory access was encountered$"):
        model.score([TALK])


@pytest.mark.parametrize("words", ["CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"])
@pytest.mark.parametrize("broken", [False, True])
def test_cublas_is_tried_again_once_torch_has_let_go_of_its_memory(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch, words: str, broken: bool
) -> None:
    forward, calls = model._forward, list[str]()

    def without_a_handle(*arguments: Any) -> Any:
        calls.append("forward")
        if broken or "empty_cache" not in calls:
            raise RuntimeError(f"CUDA error: {words} when calling `cublasCreate(handle)`")
        return forward(*arguments)

    monkeypatch.setattr(model, "_forward", without_a_handle)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty_cache"))
    if broken:
        with pytest.raises(DeviceLost, match=words):
            model.score([TALK])
    else:
        ((outcome,),) = model.score([TALK])
        assert outcome.values is not None
    assert calls == ["forward", "empty_cache", "forward"]


def test_memory_that_cuda_could_not_give_is_no_lost_device(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(model, monkeypatch, "CUDA error: out of memory\nCompile with …")
    ((outcome,),) = model.score([TALK])
    assert outcome.reason is not None
    assert outcome.reason.startswith("out_of_memory: ")


def test_any_other_error_is_raised_as_it_is(model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(model, monkeypatch, "mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        model.score([TALK])
