"""Models that are not read here: what each is, as its files show, and what to do instead."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.rewards import tensors
from assay.rewards.families import FIRST_TOKEN_LOGIT, SEQUENCE_CLASSIFICATION

#: What peft writes beside an adapter's weights.
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model"

#: What a value head's tensors begin with: TRL's, which LLaMA-Factory saves to a file of its own.
_VALUE_HEAD = "v_head."
#: Where encoders keep their heads; a causal classifier of transformers keeps its in ``score``.
_ENCODER_HEADS = ("classifier.", "classification_head.")
_HEAD = "score.weight"


class _Kind(NamedTuple):
    ending: str
    """How its architecture's name ends."""
    what: str
    """What it is, and why no score of an answer comes out of it here."""


#: The first that fits.
_KINDS = (
    _Kind(
        "ForProcessRewardModel",
        "a process reward model: it rates the steps of a solution, not an answer. Such models are not read "
        "here",
    ),
    _Kind(
        "ForTokenClassification",
        "a token classifier, and as a reward model a process reward model: it rates the steps of a solution, "
        "not an answer. Such models are not read here",
    ),
    _Kind(
        "ForRewardModel",
        "a reward model with a head of several layers (Qwen2.5-Math-RM, WorldPM) or that needs more than a "
        "conversation (POLAR). Such models are not read here",
    ),
    _Kind(
        "ForConditionalGeneration",
        "a model that writes text, and no reward model that gives a number. Such models are not read here",
    ),
)


def check_is_no_adapter(name: str, folder: Path) -> None:
    """Raise ``UserMistake`` where the folder holds a LoRA adapter and no whole model."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return
    weights = tensors.by_file(folder)
    if (folder / "config.json").is_file() and any(not one.startswith(_ADAPTER_WEIGHTS) for one in weights):
        # The tensors of an adapter beside a whole model are found when that is loaded.
        return
    base = _base_of(path)
    raise UserMistake(
        f"model {name}: {folder} holds a LoRA adapter ({ADAPTER_CONFIG}) of {base}, and no whole model. "
        "Merge it into that model, loaded by the class that it was trained with, and name the new folder: "
        "`PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)`"
    )


def _base_of(path: Path) -> str:
    try:
        base = json.loads(path.read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    return str(base)[:200] if base else "a base model that it does not name"


def check_head(name: str, folder: Path, family: str) -> None:
    """Raise ``UserMistake`` for an encoder that would be read as a causal classifier."""
    if family != SEQUENCE_CLASSIFICATION:
        return
    names = [one for shapes in tensors.by_file(folder).values() for one in shapes]
    if _HEAD not in names and any(one.startswith(_ENCODER_HEADS) for one in names):
        raise UserMistake(
            f"model {name}: its weights hold a `classifier` and no `score`: it is an encoder, and of "
            "encoders only DeBERTa's *ForSequenceClassification is supported"
        )


def why_not(
    name: str, folder: Path, architectures: Sequence[str], *, named: str | None = None
) -> UserMistake:
    """The refusal of a model whose architecture does not show how a score is read.

    ``named``: the family that was asked for, and does not fit.
    """
    shown = ", ".join(architectures) or "not named"
    asked = f"--family {named}: " if named else ""
    value_head = _value_head(folder)
    if value_head is not None:
        return UserMistake(
            f"{asked}model {name}: {value_head} is the value head of a reward model that LLaMA-Factory or "
            f"TRL trained (its architecture is {shown}), and such heads are not read here yet. Where its "
            "bias is 0, save the model as a *ForSequenceClassification with that head as its score.weight"
        )
    if any(one.endswith("ForCausalLM") for one in architectures):
        return UserMistake(
            f"{asked}model {name}: its architecture is {shown}, and no head in its folder gives a score. "
            "Mostly that is a chat model, a generative reward model (a judge, which writes its verdict) or a "
            "process reward model (which marks steps by tokens), and none of them is read here. If its card "
            "reads the logit of vocabulary id 0, as those of Llama-3.x-Nemotron-70B-Reward do, say "
            f"--family {FIRST_TOKEN_LOGIT}"
        )
    for kind in _KINDS:
        if any(one.endswith(kind.ending) for one in architectures):
            return UserMistake(f"{asked}model {name}: its architecture is {shown}: {kind.what}")
    return UserMistake(
        f"{asked}model {name}: its architecture is {shown}; a reward model here is a "
        "*ForSequenceClassification, one of ArmoRM's, QRM's or URM's, or an InternLM2ForRewardModel"
    )


def has_value_head(folder: Path) -> bool:
    """Whether a value head lies in the folder, with the model or beside it."""
    return _value_head(folder) is not None


def _value_head(folder: Path) -> str | None:
    """``v_head.summary.weight in value_head.safetensors``; None where there is no value head."""
    for file, shapes in tensors.by_file(folder).items():
        for tensor in sorted(shapes, reverse=True):
            if tensor.startswith(_VALUE_HEAD):
                return f"{tensor} in {file}"
    return None
