"""Every entry of the catalog is whole, and the published models are in it."""

from __future__ import annotations

import pytest

from assay.core.schema import turn_positions
from assay.rewards.catalog import CATALOG
from assay.rewards.families import FAMILIES


@pytest.mark.parametrize("name", CATALOG)
def test_every_entry_is_whole(name: str) -> None:
    entry = CATALOG[name]
    assert entry.family is None or entry.family in FAMILIES
    assert set(entry.factors) <= set(entry.attributes or ())
    for example in entry.published:
        assert turn_positions(example.messages)[-1] == len(example.messages) - 1
        assert set(example.values) <= set(entry.attributes or ())
    if entry.trained_tokens and entry.max_tokens:
        assert entry.trained_tokens <= entry.max_tokens


@pytest.mark.parametrize(
    "name",
    [
        "nvidia/Qwen-2.5-Nemotron-32B-Reward",
        "nvidia/Llama-3.3-Nemotron-70B-Reward-Multilingual",
        "nvidia/Llama-3.3-Nemotron-70B-Reward",
        "nvidia/Llama-3.1-Nemotron-70B-Reward-HF",
        "nvidia/Nemotron-4-340B-Reward",
        "nvidia/nemotron-3-34b-reward",
        "Skywork/Skywork-Reward-V2-Qwen3-8B",
        "RLHFlow/ArmoRM-Llama3-8B-v0.1",
        "nicolinho/QRM-Llama3.1-8B",
        "LxzGordon/URM-LLaMa-3.1-8B",
        "internlm/internlm2-7b-reward",
        "OpenAssistant/reward-model-deberta-v3-large-v2",
    ],
)
def test_the_published_models_are_known(name: str) -> None:
    assert name in CATALOG
