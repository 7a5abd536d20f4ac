"""Models that are not read here: what each is, as its files show, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.rewards import tensors
from assay.rewards.families import FIRST_TOKEN_LOGIT, SEQUENCE_CLASSIFICATION
from assay.rewards.head_in_weights import is_of_a_head

#: What LLaMA-Factory saves a value head to where it is not to save safetensors.
_PICKLED_VALUE_HEAD = "value_head.bin"
#: Where encoders keep their heads; a causal classifier of transformers keeps its in ``score``.
_ENCODER_HEADS = ("classifier.", "classification_head.")
_HEAD = "score.weight"
#: What is in the names of an adapter's tensors.
_ADAPTERS = (".lora_A.", ".lora_B.", ".lora_embedding_", ".lora_magnitude_vector")


class _Kind(NamedTuple):
    ending: str
    """How its architecture's name ends."""
    what: str
    """What it is, and why no score of an answer comes out of it here."""


_PROCESS = (
    "a process reward model: it rates the steps of a solution, not an answer. Such models are not read here"
)
#: What their names hold.
_PROCESS_NAME = re.compile(r"(?<![a-z])prm(?![a-z])", re.IGNORECASE)

#: The first that fits.
_KINDS = (
    _Kind(
        "ForProcessRewardModel",
        _PROCESS,
    ),
    _Kind(
        "ForTokenClassification",
        "a token classifier, and as a reward model a process reward model: it rates the steps of a solution, "
        "not an answer. Such models are not read here",
    ),
    _Kind("ForPrmModel", _PROCESS),
    _Kind(
        "ForRewardModel",
        "of such models those are read whose head has the layers score.0 and score.2 and gives one number "
        "(Qwen2.5-Math-RM, WorldPM). Others rate the steps of a solution (Skywork-o1-Open-PRM), or need more "
        "than a conversation (POLAR)",
    ),
    _Kind(
        "ForConditionalGeneration",
        "a model that writes text, and no reward model that gives a number. Such models are not read here",
    ),
)


def check_head(name: str, folder: Path, family: str) -> None:
    """Raise ``UserMistake`` for an encoder that would be read as a causal classifier, and for one that has
    tensors which no causal classifier takes, so far as their names show it before the model is opened.
    """
    if family != SEQUENCE_CLASSIFICATION:
        return
    files = tensors.by_file(folder)
    names = [one for file in tensors.loaded(folder, files) for one in files[file]]
    for one in names:
        if (is_of_a_head(one) and one != _HEAD) or any(part in one for part in _ADAPTERS):
            raise UserMistake(why_not_taken(name, one, family))
    if _HEAD not in names and any(one.startswith(_ENCODER_HEADS) for one in names):
        raise UserMistake(
            f"model {name}: its weights hold a `classifier` and no `score`: it is an encoder, and of "
            "encoders only DeBERTa's *ForSequenceClassification is supported"
        )


def why_not_taken(name: str, tensor: str, family: str) -> str:
    """Why a model is refused whose files hold a tensor that no layer takes."""
    return (
        f"model {name}: its weights hold {tensor}, which no layer of {family} takes; whatever it was trained "
        "to do to the score would be left out. If it is no part of the model, take it out of the file"
    )


def check_rates_no_steps(name: str, saved_as: object, architectures: Sequence[str]) -> None:
    """Raise ``UserMistake`` for a model whose name, or that in its config.json, is a process reward model's.

    Its architecture may have the name, and its head the shape, of a model that rates answers.
    """
    for one in (name, saved_as):
        if isinstance(one, str) and _PROCESS_NAME.search(one.rsplit("/", 1)[-1]):
            raise UserMistake(
                f"model {name}: by its name ({one}) it is {_PROCESS} (its architecture is "
                f"{', '.join(architectures)})"
            )


def why_not(
    name: str, folder: Path, architectures: Sequence[str], *, named: str | None = None
) -> UserMistake:
    """The refusal of a model whose architecture does not show how a score is read.

    ``named``: the family that was asked for, and does not fit.
    """
    shown = ", ".join(architectures) or "not named"
    asked = f"--family {named}: " if named else ""
    if (folder / _PICKLED_VALUE_HEAD).is_file():
        return UserMistake(
            f"{asked}model {name}: {_PICKLED_VALUE_HEAD} holds its head as a pickle, and pickles are never "
            "loaded: save what it holds as value_head.safetensors"
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
