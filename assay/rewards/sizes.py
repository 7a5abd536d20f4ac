"""How large published reward models are, so that a folder is not taken for a model of another size.

Sizes are those of the language models that they were trained from: as torchtune's model builders have them
(pytorch/torchtune: models/llama3_1, llama3_2, qwen2_5, qwen3, gemma, gemma2), and for DeBERTa its README.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from assay.core.errors import UserMistake


class Size(NamedTuple):
    """Of a backbone; None: not known."""

    width: int | None
    """Numbers in a hidden state."""
    layers: int | None


_LLAMA_8B, _LLAMA_70B = Size(4096, 32), Size(8192, 80)
_LLAMA_1B, _LLAMA_3B = Size(2048, 16), Size(3072, 28)
_QWEN_7B, _QWEN_32B, _QWEN_72B = Size(3584, 28), Size(5120, 64), Size(8192, 80)
_GEMMA_2B, _GEMMA_2_2B, _GEMMA_2_27B = Size(2048, 18), Size(2304, 26), Size(4608, 46)

#: By the model's name in the catalog. Of InternLM2's no source was seen.
SIZES: dict[str, Size] = {
    "nvidia/Qwen-2.5-Nemotron-32B-Reward": _QWEN_32B,
    "nvidia/Qwen-3-Nemotron-32B-Reward": _QWEN_32B,
    "nvidia/Llama-3.3-Nemotron-70B-Reward-Multilingual": _LLAMA_70B,
    "nvidia/Llama-3.3-Nemotron-70B-Reward": _LLAMA_70B,
    "nvidia/Llama-3.1-Nemotron-70B-Reward-HF": _LLAMA_70B,
    "nvidia/AceMath-7B-RM": _QWEN_7B,
    "nvidia/AceMath-72B-RM": _QWEN_72B,
    "Skywork/Skywork-Reward-Gemma-2-27B": _GEMMA_2_27B,
    "Skywork/Skywork-Reward-Gemma-2-27B-v0.2": _GEMMA_2_27B,
    "Skywork/Skywork-Reward-Llama-3.1-8B": _LLAMA_8B,
    "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2": _LLAMA_8B,
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": Size(1024, 28),
    "Skywork/Skywork-Reward-V2-Qwen3-1.7B": Size(2048, 28),
    "Skywork/Skywork-Reward-V2-Qwen3-4B": Size(2560, 36),
    "Skywork/Skywork-Reward-V2-Qwen3-8B": Size(4096, 36),
    "Skywork/Skywork-Reward-V2-Llama-3.2-1B": _LLAMA_1B,
    "Skywork/Skywork-Reward-V2-Llama-3.2-3B": _LLAMA_3B,
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": _LLAMA_8B,
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B-40M": _LLAMA_8B,
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": _LLAMA_8B,
    "nicolinho/QRM-Llama3-8B": _LLAMA_8B,
    "nicolinho/QRM-Llama3.1-8B": _LLAMA_8B,
    "nicolinho/QRM-Llama3.1-8B-v2": _LLAMA_8B,
    "nicolinho/QRM-Gemma-2-27B": _GEMMA_2_27B,
    "LxzGordon/URM-LLaMa-3.1-8B": _LLAMA_8B,
    "allenai/Llama-3.1-8B-Base-RM-RB2": _LLAMA_8B,
    "allenai/Llama-3.1-8B-Instruct-RM-RB2": _LLAMA_8B,
    "allenai/Llama-3.1-70B-Instruct-RM-RB2": _LLAMA_70B,
    "allenai/Llama-3.1-Tulu-3-8B-SFT-RM-RB2": _LLAMA_8B,
    "allenai/Llama-3.1-Tulu-3-70B-SFT-RM-RB2": _LLAMA_70B,
    "allenai/Llama-3.1-Tulu-3-8B-RM": _LLAMA_8B,
    "sfairXC/FsfairX-LLaMA3-RM-v0.1": _LLAMA_8B,
    "NCSOFT/Llama-3-OffsetBias-RM-8B": _LLAMA_8B,
    "Ray2333/GRM-Gemma2-2B-rewardmodel-ft": _GEMMA_2_2B,
    "Ray2333/GRM-Gemma-2B-rewardmodel-ft": _GEMMA_2B,
    "Ray2333/GRM_Llama3.1_8B_rewardmodel-ft": _LLAMA_8B,
    "Ray2333/GRM-Llama3-8B-rewardmodel-ft": _LLAMA_8B,
    "Ray2333/GRM-Llama3.2-3B-rewardmodel-ft": _LLAMA_3B,
    "Ray2333/GRM-llama3-8B-distill": _LLAMA_8B,
    "Ray2333/GRM-llama3-8B-sftreg": _LLAMA_8B,
    "Ray2333/GRM-llama3.2-3B-sftreg": _LLAMA_3B,
    "Ray2333/GRM-Gemma2-2B-sftreg": _GEMMA_2_2B,
    "Ray2333/GRM-Gemma-2B-sftreg": _GEMMA_2B,
    "infly/INF-ORM-Llama3.1-70B": _LLAMA_70B,
    "Qwen/Qwen2.5-Math-RM-72B": _QWEN_72B,
    "Qwen/WorldPM-72B": _QWEN_72B,
    "Qwen/WorldPM-72B-HelpSteer2": _QWEN_72B,
    "Qwen/WorldPM-72B-UltraFeedback": _QWEN_72B,
    "Qwen/WorldPM-72B-RLHFLow": _QWEN_72B,
    "Nexusflow/Athene-RM-8B": _LLAMA_8B,
    "Nexusflow/Athene-RM-70B": _LLAMA_70B,
    "RLHFlow/Decision-Tree-Reward-Llama-3.1-8B": _LLAMA_8B,
    "RLHFlow/Decision-Tree-Reward-Gemma-2-27B": _GEMMA_2_27B,
    "OpenAssistant/reward-model-deberta-v3-base": Size(768, 12),
    "OpenAssistant/reward-model-deberta-v3-large": Size(1024, 24),
    "OpenAssistant/reward-model-deberta-v3-large-v2": Size(1024, 24),
}

_WIDTHS, _LAYERS = ("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer")


def size_in(config: Mapping[str, Any]) -> Size:
    """The size that a config.json states, be it of a model of text alone or of its part that reads text."""
    return Size(_number(config, _WIDTHS), _number(config, _LAYERS))


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    inside = config.get("text_config")
    for settings in (config, inside if isinstance(inside, dict) else {}):
        for name in names:
            number = settings.get(name)
            if isinstance(number, int) and number:
                return number
    return None


def check_size(claimed: str, name: str, config: Mapping[str, Any]) -> None:
    """Raise ``UserMistake`` where config.json states another size than that of the model that is claimed."""
    published, found = SIZES.get(claimed), size_in(config)
    if published is None:
        return
    if any(one is not None and one != due for one, due in zip(found, published, strict=True)):
        raise UserMistake(
            f"--as {claimed}: that model has {published.layers} layers and a width of {published.width:,}, "
            f"and by its config.json {name} has {_said(found.layers)} layers and a width of "
            f"{_said(found.width)}"
        )


def _said(number: int | None) -> str:
    return "an unknown number of" if number is None else f"{number:,}"
