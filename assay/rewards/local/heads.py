"""How each model family turns hidden states into numbers, at the positions that are asked for only.

A head is applied to gathered positions, never to every position and never to a whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch

from assay.errors import ModelFault
from assay.rewards import families
from assay.rewards.protocol import ModelSpec

#: ``[rows, hidden] -> [rows, attributes]``. For a gated family a row is the state at the turn's end
#: followed by the state at its gate: ``[rows, 2 * hidden]``.
Head = Callable[[torch.Tensor], torch.Tensor]

#: The vocabulary id whose logit is the reward of NVIDIA's Llama-3.x-Nemotron-70B-Reward models (their cards).
REWARD_TOKEN_ID = 0

#: ArmoRM's card: its first five objectives are HelpSteer's, and ``x * 5 - 0.5`` puts them on their 0-4.
HELPSTEER_SCALE, HELPSTEER_OFFSET = 5.0, -0.5
HELPSTEER_OBJECTIVES = 5

#: What the softmax of the gate divides by where config.json does not say (both repositories' default).
_GATING_TEMPERATURE = 10.0


def sequence_classification(model: Any, spec: ModelSpec) -> Head:
    """The linear layer that transformers' ``*ForSequenceClassification`` puts on the last hidden state."""
    layer = getattr(model, "score", None)
    if not isinstance(layer, torch.nn.Linear):
        raise ModelFault(
            f"{type(model).__name__} has no linear layer named `score`, which is where its family keeps "
            "the head; this architecture is not supported"
        )
    # A model that is spread over devices may have its head on another than its last states.
    return lambda hidden: layer(hidden.to(layer.weight.device))


def first_token_logit(model: Any, spec: ModelSpec) -> Head:
    """The one row of the output embedding that belongs to vocabulary id 0."""
    layer = model.get_output_embeddings()
    if not isinstance(layer, torch.nn.Linear):
        raise ModelFault(f"{type(model).__name__} has no linear output embedding to read a reward from")
    row = slice(REWARD_TOKEN_ID, REWARD_TOKEN_ID + 1)
    weight = layer.weight[row]
    bias = None if layer.bias is None else layer.bias[row]
    return lambda hidden: torch.nn.functional.linear(hidden.to(weight.device), weight, bias)


def appended_token(model: Any, spec: ModelSpec) -> Head:
    """The linear layer ``v_head`` on the state of the appended token."""
    layer = getattr(model, "v_head", None)
    if not isinstance(layer, torch.nn.Linear):
        raise ModelFault(f"{type(model).__name__} has no linear layer named `v_head` to read a reward from")
    return lambda hidden: layer(hidden.to(layer.weight.device))


def pair_classification(model: Any, spec: ModelSpec) -> Head:
    """The pooler and the classifier of transformers' DeBERTa, on the state of the first token."""
    pooler = getattr(model, "pooler", None)
    classifier = getattr(model, "classifier", None)
    if pooler is None or not isinstance(classifier, torch.nn.Linear):
        raise ModelFault(
            f"{type(model).__name__} has no `pooler` and linear `classifier`; of encoders, DeBERTa's "
            "*ForSequenceClassification is supported"
        )
    return lambda hidden: classifier(pooler(hidden[:, None]))


def gated_objectives(model: Any, spec: ModelSpec) -> Head:
    """The gated scalar and HelpSteer's five, as ArmoRM's and QRM's cards define them, in float32.

    Objectives are one linear layer on the state at the turn's end (QRM's has several quantiles an
    objective, which are averaged); the gate is a small network on the state at the turn's header, its
    softmax the objectives' weights. Built from the tensors in the folder: layers in their numbers'
    order, a rectifier after every linear one but the last, then QRM's batch normalisation.
    """
    tensors = _head_tensors(Path(spec.folder), skipping="model.")
    config = model.config
    try:
        regression = tensors.pop("regression_layer.weight")
        transform = tensors.pop("reward_transform_matrix")
        scale = tensors.pop("gating.logit_scale")
    except KeyError as error:
        raise ModelFault(
            f"model {spec.name}: its weights lack {error.args[0]}, part of a gated head"
        ) from error
    objectives = int(getattr(config, "num_objectives", transform.shape[0]))
    if regression.shape[0] % objectives or transform.shape != (objectives, objectives):
        raise ModelFault(
            f"model {spec.name}: {regression.shape[0]} regression outputs do not fit {objectives} objectives"
        )
    gate = _gating_layers(tensors, spec)
    temperature = float(getattr(config, "gating_temperature", _GATING_TEMPERATURE))
    device = next(model.parameters()).device
    regression, transform, scale = (tensor.to(device) for tensor in (regression, transform, scale))
    gate.to(device)

    def head(states: torch.Tensor) -> torch.Tensor:
        end, header = states.to(device).float().chunk(2, dim=-1)
        rewards = (end @ regression.T).unflatten(-1, (objectives, -1)).mean(-1)
        weights = torch.softmax(gate(header) / temperature, dim=-1) * scale[0]
        scalar = (weights * (rewards @ transform)).sum(-1, keepdim=True)
        helpsteer = rewards[:, :HELPSTEER_OBJECTIVES] * HELPSTEER_SCALE + HELPSTEER_OFFSET
        return torch.cat([scalar, helpsteer], dim=-1)

    return head


def _head_tensors(folder: Path, *, skipping: str) -> dict[str, torch.Tensor]:
    """The tensors whose names do not begin with ``skipping``, as float32."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if not name.startswith(skipping):
                    found[name] = file.get_tensor(name).float()
    return found


def _gating_layers(tensors: dict[str, torch.Tensor], spec: ModelSpec) -> torch.nn.Module:
    """The network whose tensors are named ``gating.layers.NUMBER.…``, in evaluation mode."""
    numbered: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition("gating.layers.")
        number, _, part = rest.partition(".")
        if first or not number.isdigit():
            raise ModelFault(
                f"model {spec.name}: {name} is no part of a gated head that is known here "
                "(ArmoRM's and QRM's are)"
            )
        numbered.setdefault(int(number), {})[part] = tensor
    last_linear = max((number for number, parts in numbered.items() if parts["weight"].ndim == 2), default=-1)
    if last_linear < 0:
        raise ModelFault(f"model {spec.name}: its weights lack the layers of the gate")
    layers: list[torch.nn.Module] = []
    for place, parts in sorted(numbered.items()):
        weight = parts["weight"]
        layer: torch.nn.Module
        if weight.ndim == 2:
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in parts)
        else:
            layer = torch.nn.BatchNorm1d(weight.shape[0])
        layer.load_state_dict(parts)
        layers.append(layer)
        if weight.ndim == 2 and place != last_linear:
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers).eval()


HEADS: dict[str, Callable[[Any, ModelSpec], Head]] = {
    families.SEQUENCE_CLASSIFICATION: sequence_classification,
    families.FIRST_TOKEN_LOGIT: first_token_logit,
    families.GATED_OBJECTIVES: gated_objectives,
    families.APPENDED_TOKEN: appended_token,
    families.PAIR_CLASSIFICATION: pair_classification,
}


def own_call(family: str, model: Any, token_ids: torch.Tensor) -> torch.Tensor | None:
    """``[1, attributes]`` that the model's own forward pass gives for ``[1, time]`` ids; None without one.

    A gated family has none here: the class that would compute it is code from a model's repository,
    which does not run. Tests hold its head to the documented computation.
    """
    if family == families.GATED_OBJECTIVES:
        return None
    if family == families.PAIR_CLASSIFICATION:
        logits: torch.Tensor = model(input_ids=token_ids, attention_mask=torch.ones_like(token_ids)).logits
        return logits
    logits = model(input_ids=token_ids, use_cache=False).logits
    return logits[:, -1, REWARD_TOKEN_ID, None] if family == families.FIRST_TOKEN_LOGIT else logits
