"""How each model family turns hidden states into numbers, at the positions that are asked for only.

A head is applied to gathered positions, never to every position and never to a whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from assay.errors import ModelFault

SEQUENCE_CLASSIFICATION = "sequence-classification"
FIRST_TOKEN_LOGIT = "first-token-logit"

#: ``[rows, hidden] -> [rows, attributes]``
Head = Callable[[torch.Tensor], torch.Tensor]

#: The vocabulary id whose logit is the reward of NVIDIA's Llama-3.x-Nemotron-70B-Reward models (their cards).
REWARD_TOKEN_ID = 0


def sequence_classification(model: Any) -> Head:
    """The linear layer that transformers' ``*ForSequenceClassification`` puts on the last hidden state."""
    layer = getattr(model, "score", None)
    if not isinstance(layer, torch.nn.Linear):
        raise ModelFault(
            f"{type(model).__name__} has no linear layer named `score`, which is where its family keeps "
            "the head; this architecture is not supported"
        )
    return layer


def first_token_logit(model: Any) -> Head:
    """The one row of the output embedding that belongs to vocabulary id 0."""
    layer = model.get_output_embeddings()
    if not isinstance(layer, torch.nn.Linear):
        raise ModelFault(f"{type(model).__name__} has no linear output embedding to read a reward from")
    row = slice(REWARD_TOKEN_ID, REWARD_TOKEN_ID + 1)
    weight = layer.weight[row]
    bias = None if layer.bias is None else layer.bias[row]
    return lambda hidden: torch.nn.functional.linear(hidden, weight, bias)


HEADS: dict[str, Callable[[Any], Head]] = {
    SEQUENCE_CLASSIFICATION: sequence_classification,
    FIRST_TOKEN_LOGIT: first_token_logit,
}
