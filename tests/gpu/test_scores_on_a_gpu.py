"""A GPU gives every score that a CPU gives, however batches are made, and reports what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_families as families
import torch
from places import ROOT

from assay.core.schema import Conversation, Message, turn_positions
from assay.rewards.local import attention
from assay.rewards.local.model import CUDA_MOST_BATCH_TOKENS, LocalRewardModel, open_model
from assay.rewards.protocol import Request

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

#: float32 on both sides; a GPU adds up in another order.
TOLERANCE = 1e-4

#: Enough for a conversation alone, and too little for hundreds together.
LEFT_BYTES = 64 << 20


@pytest.fixture(scope="module", params=sorted(families.FAMILIES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> families.Tiny:
    families.copy_code_to(tmp_path_factory.mktemp("modules"))
    return families.FAMILIES[request.param](tmp_path_factory.mktemp("made") / "model", "chatml")


def whole(conversation: Conversation) -> Request:
    return Request(conversation, tuple(range(len(turn_positions(conversation)))))


def all_scores(model: LocalRewardModel, talks: Sequence[Conversation]) -> list[tuple[float, ...]]:
    found = [turn for turns in model.score([whole(talk) for talk in talks]) for turn in turns]
    assert all(turn.values is not None for turn in found), found
    return [turn.values for turn in found if turn.values is not None]


def furthest(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """The largest difference, relative to scores above 1."""
    return max(
        abs(a - b) / max(1.0, abs(b))
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("budget", [1, 400, CUDA_MOST_BATCH_TOKENS])
def test_a_gpu_gives_what_the_models_card_gives_on_a_cpu(made: families.Tiny, budget: int) -> None:
    model = LocalRewardModel(made.spec, device="cuda", batch_tokens=budget)
    talks = families.conversations(24, seed=budget)
    expected = [made.card(talk[: place + 1]) for talk in talks for place in turn_positions(talk)]
    assert furthest(all_scores(model, talks), expected) <= TOLERANCE


def test_the_same_batches_give_the_same_bits(made: families.Tiny) -> None:
    talks = families.conversations(40, seed=5)
    scores = [all_scores(open_model(made.spec), talks) for _ in range(2)]
    assert scores[0] == scores[1]


def test_answers_that_share_a_prompt_score_as_they_do_alone(tmp_path: Path) -> None:
    model = open_model(families.classifier(tmp_path / "model", "chatml").spec)
    assert model.shares_no_beginnings_because is None
    prompt = Message("user", "fox and dog " * 200)
    answers = [Message("assistant", f"{number} " + "rain " * (number * 3 + 1)) for number in range(8)]
    before = model.tokens_seen
    together = all_scores(model, [(prompt, answer) for answer in answers])
    shared = model.tokens_seen - before
    alone = [all_scores(model, [(prompt, answer)])[0] for answer in answers]
    assert shared < (model.tokens_seen - before - shared) / 3, "the prompt was computed for each answer"
    assert furthest(together, alone) <= TOLERANCE


def test_memory_that_runs_out_makes_batches_smaller_and_changes_no_score(tmp_path: Path) -> None:
    model = LocalRewardModel(families.classifier(tmp_path / "model", "chatml").spec, device="cuda")
    attention.use_cudnn(False)
    talks = families.conversations(400, seed=7)
    expected = all_scores(model, talks)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved()
    total = torch.cuda.get_device_properties(0).total_memory
    model.batch_tokens = 1 << 24
    torch.cuda.set_per_process_memory_fraction((held + LEFT_BYTES) / total)
    try:
        scores = all_scores(model, talks)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert model.batch_tokens < 1 << 24, "memory was enough for all at once"
    assert furthest(scores, expected) <= TOLERANCE


#: A token that the model has no embedding for: CUDA's own assertion fails, and the process has lost its GPU.
_LOSES_ITS_GPU = """
import sys
import numpy as np
from pathlib import Path
import tiny
from assay.core.errors import DeviceLost
from assay.core.schema import Message
from assay.rewards.local.model import open_model
from assay.rewards.protocol import Request

model = open_model(tiny.spec(tiny.reward_model(Path(sys.argv[1]))))
model.network.padded = lambda sequences: model.network.on_device(np.full((len(sequences), 9), 10**6))
talk = Request((Message("user", "Hi"), Message("assistant", "Hello")), (0,))
for _ in range(2):
    try:
        model.score([talk])
    except DeviceLost as error:
        print("lost:", error)
"""


def test_a_broken_gpu_is_reported_at_every_call(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LOSES_ITS_GPU, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    assert ended.stdout.count("lost: the GPU is lost to this process: CUDA error:") == 2, ended.stderr[-2000:]
