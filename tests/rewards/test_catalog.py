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
        "nvidia/Qwen-3-Nemotron-32B-Reward",
        "allenai/Llama-3.1-8B-Instruct-RM-RB2",
        "allenai/Llama-3.1-Tulu-3-8B-RM",
        "sfairXC/FsfairX-LLaMA3-RM-v0.1",
        "NCSOFT/Llama-3-OffsetBias-RM-8B",
        "Ray2333/GRM-Llama3-8B-rewardmodel-ft",
        "Ray2333/GRM-llama3-8B-sftreg",
        "nvidia/AceMath-7B-RM",
        "infly/INF-ORM-Llama3.1-70B",
        "Qwen/WorldPM-72B",
        "Qwen/Qwen2.5-Math-RM-72B",
        "Nexusflow/Athene-RM-8B",
        "RLHFlow/Decision-Tree-Reward-Llama-3.1-8B",
    ],
)
def test_the_published_models_are_known(name: str) -> None:
    assert name in CATALOG


PRINTED = {
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": ("bfloat16", [23.0], [3.59375]),
    "Skywork/Skywork-Reward-Gemma-2-27B": ("bfloat16", [9.1875], [-17.875]),
    "internlm/internlm2-20b-reward": ("float16", [0.767578125], [-2.22265625]),
    "LxzGordon/URM-LLaMa-3.1-8B": ("float32", [2.3285412788391113], [12.438033103942871]),
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_numbers_that_cards_print_are_held_against(name: str) -> None:
    dtype, *values = PRINTED[name]
    assert [list(one.values.values()) for one in CATALOG[name].published] == values
    assert {one.dtype for one in CATALOG[name].published} == {CATALOG[name].dtype} == {dtype}


def test_skyworks_second_series_is_for_conversations_without_a_system_message() -> None:
    asks = {name for name, entry in CATALOG.items() if entry.without_system}
    assert asks == {name for name in CATALOG if "Skywork-Reward-V2" in name}
    assert len(asks) == 8
