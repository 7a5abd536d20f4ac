"""How each model family turns hidden states into numbers, at the positions that are asked for only.

A head is applied to gathered positions, never to every position and never to a whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from assay.core.errors import ModelFault
from assay.rewards import families
from assay.rewards.local.built_heads import Head, attribute_mixture, gated_objectives, head_in_weights
from assay.rewards.spec import LocalSpec

#: The vocabulary id whose logit is the reward of NVIDIA's Llama-3.x-Nemotron-70B-Reward models (their cards).
REWARD_TOKEN_ID = 0


def sequence_classification(model: Any, spec: LocalSpec) -> Head:
    """The linear layer that transformers' ``*ForSequenceClassification`` puts on the last hidden state."""
    layer = getattr(model, "score", None)
    if not isinstance(layer, torch.nn.Linear):
        raise ModelFault(
            f"{type(model).__name__} has no linear layer named `score`, which is where its family keeps "
            "the head; this architecture is not supported"
        )
    # A model that is spread over devices may have its head on another than its last states.
    return lambda hidden: layer(hidden.to(layer.weight.device))


def first_token_logit(model: Any, spec: LocalSpec) -> Head:
    """The one row of the output embedding that belongs to vocabulary id 0."""
    layer = model.get_output_embeddings()
    if not isinstance(layer, torch.nn.Linear):
        raise ModelFault(f"{type(model).__name__} has no linear output embedding to read a reward from")
    row = slice(REWARD_TOKEN_ID, REWARD_TOKEN_ID + 1)
    weight = layer.weight[row]
    bias = None if layer.bias is None else layer.bias[row]
    return lambda hidden: torch.nn.functional.linear(hidden.to(weight.device), weight, bias)


def appended_token(model: Any, spec: LocalSpec) -> Head:
    """The linear layer ``v_head`` on the state of the appended token."""
    layer = getattr(model, "v_head", None)
    if not isinstance(layer, torch.nn.Linear):
        raise ModelFault(f"{type(model).__name__} has no linear layer named `v_head` to read a reward from")
    return lambda hidden: layer(hidden.to(layer.weight.device))


def pair_classification(model: Any, spec: LocalSpec) -> Head:
    """The pooler and the classifier of transformers' DeBERTa, on the state of the first token."""
    pooler = getattr(model, "pooler", None)
    classifier = getattr(model, "classifier", None)
    if pooler is None or not isinstance(classifier, torch.nn.Linear):
        raise ModelFault(
            f"{type(model).__name__} has no `pooler` and linear `classifier`; of encoders, DeBERTa's "
            "*ForSequenceClassification is supported"
        )
    return lambda hidden: classifier(pooler(hidden[:, None]))


HEADS: dict[str, Callable[[Any, LocalSpec], Head]] = {
    families.SEQUENCE_CLASSIFICATION: sequence_classification,
    families.FIRST_TOKEN_LOGIT: first_token_logit,
    families.GATED_OBJECTIVES: gated_objectives,
    families.ATTRIBUTE_MIXTURE: attribute_mixture,
    families.HEAD_IN_WEIGHTS: head_in_weights,
    families.APPENDED_TOKEN: appended_token,
    families.APPENDED_CLS: head_in_weights,
    families.PAIR_CLASSIFICATION: pair_classification,
}


def own_call(family: str, model: Any, token_ids: torch.Tensor) -> torch.Tensor | None:
    """``[1, attributes]`` that the model's own forward pass gives for ``[1, time]`` ids; None without one.

    A head that is built from weights has none here: the class that would compute it is code from the
    model's repository, which does not run. Tests hold such heads to the documented computation.
    """
    if families.FAMILIES[family].head_from_weights:
        return None
    options: dict[str, Any] = {"use_cache": False}
    if family == families.PAIR_CLASSIFICATION:
        options = {"attention_mask": torch.ones_like(token_ids)}
    elif family == families.APPENDED_TOKEN:
        # InternLM2's own code looks for the last token in the mask, and fails without one.
        options["attention_mask"] = torch.ones_like(token_ids)
    logits: torch.Tensor = model(input_ids=token_ids, **options).logits
    return (
        logits[:, -1, REWARD_TOKEN_ID, None]
        if family == families.FIRST_TOKEN_LOGIT
        else logits.reshape(1, -1)
    )
