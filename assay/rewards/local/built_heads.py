"""Heads that are built from the tensors in a model's folder, so that no code of its repository runs.

All of them compute in float32, whatever the backbone computes in: they cost next to nothing. A tensor that a
head does not know is a refusal, for whatever it does to the score would be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch

from assay.core.errors import ModelFault, UserMistake
from assay.rewards import families
from assay.rewards.head_in_weights import WeightsHead, head_in
from assay.rewards.spec import LocalSpec

#: What the names of a backbone's tensors begin with; all others are a head's.
BACKBONE = "model."

#: ``[rows, hidden] -> [rows, attributes]``. For a gated family a row is the state at the turn's end
#: followed by the state at its gate: ``[rows, 2 * hidden]``.
Head = Callable[[torch.Tensor], torch.Tensor]

#: ArmoRM's card: its first five objectives are HelpSteer's, and ``x * 5 - 0.5`` puts them on their 0-4.
HELPSTEER_SCALE, HELPSTEER_OFFSET = 5.0, -0.5
HELPSTEER_OBJECTIVES = 5

#: What the softmax of the gate divides by where config.json does not say: in the code of QRM's later
#: models, and in that of ArmoRM and QRM's first ones.
_GATING_TEMPERATURE_WITHOUT_TRANSFORM, _GATING_TEMPERATURE = 1.0, 10.0


def gated_objectives(model: Any, spec: LocalSpec) -> Head:
    """The gated scalar, and HelpSteer's five where they are asked for, as ArmoRM and QRM compute them.

    Objectives are one linear layer on the state at the turn's end (QRM's has several quantiles an
    objective, which are averaged); the gate is a small network on the state at the turn's header, its
    softmax the objectives' weights: a rectifier after every linear layer but the last, and behind it, in
    QRM, a batch normalisation.
    """
    tensors = _Tensors(spec, lambda name: not name.startswith(BACKBONE))
    regression = tensors.take("regression_layer.weight")
    scale = tensors.take("gating.logit_scale")
    gate = tensors.take_network("gating.layers.", torch.nn.ReLU)
    objectives = _outputs(gate)
    architectures = getattr(model.config, "architectures", None) or ()
    if any(name.endswith(families.WITHOUT_TRANSFORM) for name in architectures):
        transform, usual = torch.eye(objectives), _GATING_TEMPERATURE_WITHOUT_TRANSFORM
    else:
        transform, usual = tensors.take("reward_transform_matrix"), _GATING_TEMPERATURE
    tensors.none_left()
    width = model.config.get_text_config().hidden_size
    fits = regression.shape[0] % objectives == 0 and regression.shape[1:] == (width,)
    if not fits or transform.shape != (objectives, objectives) or scale.numel() != 1:
        raise ModelFault(
            f"model {spec.name}: the layers of its head do not fit each other ({objectives} objectives, "
            f"regression {tuple(regression.shape)}, transform {tuple(transform.shape)}, "
            f"scale {tuple(scale.shape)})"
        )
    temperature = float(getattr(model.config, "gating_temperature", None) or usual)
    device = next(model.parameters()).device
    regression, transform, scale = (tensor.to(device) for tensor in (regression, transform, scale))
    gate.to(device)
    helpsteer_is_asked_for = len(spec.attributes) > 1

    def head(states: torch.Tensor) -> torch.Tensor:
        end, header = states.to(device).float().chunk(2, dim=-1)
        rewards = (end @ regression.T).unflatten(-1, (objectives, -1)).mean(-1)
        weights = torch.softmax(gate(header) / temperature, dim=-1) * scale.reshape(())
        scalar: torch.Tensor = (weights * (rewards @ transform)).sum(-1, keepdim=True)
        if not helpsteer_is_asked_for:
            return scalar
        helpsteer = rewards[:, :HELPSTEER_OBJECTIVES] * HELPSTEER_SCALE + HELPSTEER_OFFSET
        return torch.cat([scalar, helpsteer], dim=-1)

    return head


def attribute_mixture(model: Any, spec: LocalSpec) -> Head:
    """The weighed sum of attributes' means, as URM computes it.

    One linear layer gives a mean and a spread for every attribute, in turns; a small network on the same
    state weighs the means. The spreads are no part of the score.
    """
    tensors = _Tensors(spec, lambda name: not name.startswith(BACKBONE))
    distributions = tensors.take("score.weight")
    weigh = tensors.take_network("weights.fc.", torch.nn.SELU)
    tensors.none_left()
    attributes = _outputs(weigh)
    if distributions.shape[0] != 2 * attributes:
        raise ModelFault(
            f"model {spec.name}: {distributions.shape[0]} outputs are no mean and spread for each of "
            f"{attributes} attributes"
        )
    device = next(model.parameters()).device
    means = distributions[::2].to(device)
    weigh.to(device)

    def head(states: torch.Tensor) -> torch.Tensor:
        states = states.to(device).float()
        weighed: torch.Tensor = ((states @ means.T) * weigh(states)).sum(-1, keepdim=True)
        return weighed

    return head


def head_in_weights(model: Any, spec: LocalSpec) -> Head:
    """The linear layers that lie in the weights beside the backbone, a rectifier between two of them."""
    found = weights_head(spec, model.config.get_text_config().hidden_size)
    tensors = _Tensors(spec, found.holds)
    layers: list[torch.nn.Module] = []
    for layer in found.layers:
        layers += [torch.nn.ReLU()] if layers else []
        layers.append(tensors.take_linear(layer.name, has_bias=layer.has_bias))
    tensors.none_left()
    device = next(model.parameters()).device
    network = torch.nn.Sequential(*layers).eval().to(device)
    return lambda states: network(states.to(device).float())


def weights_head(spec: LocalSpec, width: int | None = None) -> WeightsHead:
    """The head in its weights; ``ModelFault`` where there is none, or where it does not fit ``width``."""
    try:
        found = head_in(spec.name, _folder_of_head(spec), width)
    except UserMistake as mistake:
        raise ModelFault(str(mistake)) from mistake
    if found is None:
        raise ModelFault(f"model {spec.name}: its weights hold no head")
    return found


def _folder_of_head(spec: LocalSpec) -> Path:
    """Where the tensors of its head lie: beside an adapter's, or with the model's."""
    return Path(spec.adapter or spec.folder)


def _outputs(network: torch.nn.Sequential) -> int:
    """How many numbers it gives."""
    last = network[-1]
    assert isinstance(last, torch.nn.Linear)
    return last.out_features


class _Tensors:
    """The tensors of a model's folder that are ``wanted``, as float32, to be taken by name."""

    def __init__(self, spec: LocalSpec, wanted: Callable[[str], bool]) -> None:
        self._model = spec.name
        self._left: dict[str, torch.Tensor] = {}
        for path in sorted(_folder_of_head(spec).glob("*.safetensors")):
            with safetensors.safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    if wanted(name):
                        self._left[name] = file.get_tensor(name).float()

    def take(self, name: str) -> torch.Tensor:
        """The tensor of that name; ``ModelFault`` where there is none."""
        if name not in self._left:
            raise ModelFault(f"model {self._model}: its weights lack {name}, part of its head")
        return self._left.pop(name)

    def take_linear(self, name: str, *, has_bias: bool) -> torch.nn.Module:
        """The linear layer whose tensors are ``name.weight`` and, where it has one, ``name.bias``."""
        names = ("weight", "bias") if has_bias else ("weight",)
        return self._layer(name, {part: self.take(f"{name}.{part}") for part in names})

    def take_network(self, prefix: str, activation: Callable[[], torch.nn.Module]) -> torch.nn.Sequential:
        """The layers whose tensors are named ``{prefix}NUMBER.PART``, in evaluation mode.

        ``activation`` follows every linear layer but the last. Numbers may be missing: an activation has
        one too, and no tensors.
        """
        numbered: dict[int, dict[str, torch.Tensor]] = {}
        for name in [name for name in self._left if name.startswith(prefix)]:
            number, _, part = name.removeprefix(prefix).partition(".")
            if number.isdigit():
                numbered.setdefault(int(number), {})[part] = self._left.pop(name)
        layers: list[torch.nn.Module] = []
        for place, parts in sorted(numbered.items()):
            layer = self._layer(f"{prefix}{place}", parts)
            layers.append(layer)
            if isinstance(layer, torch.nn.Linear) and place != max(numbered):
                layers.append(activation())
        if not layers or not isinstance(layers[-1], torch.nn.Linear):
            raise ModelFault(f"model {self._model}: its weights lack a linear layer where {prefix}… ends")
        return torch.nn.Sequential(*layers).eval()

    def _layer(self, name: str, parts: dict[str, torch.Tensor]) -> torch.nn.Module:
        """A linear layer for a matrix, a batch normalisation for a row of weights."""
        shape = parts["weight"].shape if "weight" in parts else ()
        layer: torch.nn.Module
        if len(shape) == 2:
            layer = torch.nn.Linear(shape[1], shape[0], bias="bias" in parts)
        else:
            layer = torch.nn.BatchNorm1d(shape[0] if shape else 0)
        try:
            layer.load_state_dict(parts)
        except RuntimeError as error:
            raise ModelFault(
                f"model {self._model}: {name} is neither a linear layer nor a batch normalisation, and no "
                "other part of a head is known here"
            ) from error
        return layer

    def none_left(self) -> None:
        """Raise ``ModelFault`` for a tensor that nothing has taken."""
        if self._left:
            raise ModelFault(
                f"model {self._model}: {min(self._left)} is no part of a head that is known here; without it "
                "the score would be another one"
            )
