"""A head that lies in a model's weights and that no class of transformers loads: which it is, by its tensors.

Only names and shapes are read here; ``local.built_heads`` builds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.rewards import tensors
from assay.rewards.tensors import Shape

#: What the names of a head's tensors begin with. ``v_head.summary``: TRL's value head, which LLaMA-Factory
#: saves to a file of its own. ``score``: where transformers' classifiers have theirs.
VALUE_HEAD = "v_head.summary"
SCORE = "score"
#: Athene's, on an appended token.
APPENDED_HEAD = "v_head"

#: What any head that is known here begins with.
_BEGINNINGS = ("v_head.", "score.")

_PART = re.compile(r"(?:(?P<number>\d+)\.)?(?P<part>weight|bias)")

#: Behind every linear layer but the last stands one module without tensors: a rectifier.
_APART = 2


class Layer(NamedTuple):
    """One linear layer."""

    name: str
    """Of its tensors, without ``.weight``."""
    outputs: int
    inputs: int
    has_bias: bool


@dataclass(frozen=True, slots=True)
class WeightsHead:
    """Linear layers with a rectifier between two of them."""

    prefix: str
    """What the names of all its tensors begin with, without the dot."""
    layers: tuple[Layer, ...]
    files: frozenset[str]
    """Names of the files that hold it."""

    @property
    def outputs(self) -> int:
        """How many numbers it gives."""
        return self.layers[-1].outputs

    @property
    def described(self) -> str:
        """Such as ``v_head.summary: linear 4096 to 1024, ReLU, linear 1024 to 1``."""
        layers = [f"linear {layer.inputs} to {layer.outputs}" for layer in self.layers]
        return f"{self.prefix}: {', ReLU, '.join(layers)}"

    def holds(self, tensor: str) -> bool:
        """Whether the tensor of that name is part of it."""
        return tensor.startswith(f"{self.prefix}.")


def is_of_a_head(tensor: str) -> bool:
    """Whether the tensor of that name is part of a head, by its name."""
    return tensor.startswith(_BEGINNINGS)


def tensors_of_heads(folder: Path) -> dict[str, list[str]]:
    """The files that hold each tensor of a head, by the tensor's name."""
    found: dict[str, list[str]] = {}
    for file, shapes in tensors.by_file(folder).items():
        for name in shapes:
            if is_of_a_head(name):
                found.setdefault(name, []).append(file)
    return found


def is_a_classifiers(folder: Path) -> bool:
    """Whether a classifier of transformers takes the head in that folder, or there is none.

    That is any but layers named ``score.0``, ``score.2`` …, and Athene's ``v_head.weight`` without a
    ``score.weight``.
    """
    found = tensors_of_heads(folder)
    if any(tensor.startswith(f"{SCORE}.0.") for tensor in found):
        return False
    return f"{SCORE}.weight" in found or f"{APPENDED_HEAD}.weight" not in found


def head_in(name: str, folder: Path, width: int | None) -> WeightsHead | None:
    """The head in the folder of the model called ``name``; None where there is no tensor of one.

    ``width`` is of the backbone's states; None: not known here. ``UserMistake`` names the tensor that does
    not fit.
    """
    found = tensors_of_heads(folder)
    if not found:
        return None
    for tensor, files in sorted(found.items()):
        if len(files) > 1:
            raise UserMistake(f"model {name}: {tensor} is in {' and in '.join(files)}; take one of them away")
    prefixes = sorted({_prefix(tensor) for tensor in found})
    if len(prefixes) > 1:
        first, second = (min(one for one in found if _prefix(one) == prefix) for prefix in prefixes[:2])
        raise UserMistake(
            f"model {name}: its weights hold two heads, {first} and {second}, and nothing says which one "
            "gives the score"
        )
    (prefix,) = prefixes
    shapes = {tensor: shape for held in tensors.by_file(folder).values() for tensor, shape in held.items()}
    layers = _layers(name, prefix, {tensor: shapes[tensor] for tensor in found})
    _check_chain(name, layers, width)
    return WeightsHead(prefix, layers, frozenset(file for files in found.values() for file in files))


def _prefix(tensor: str) -> str:
    return VALUE_HEAD if tensor.startswith(f"{VALUE_HEAD}.") else tensor.partition(".")[0]


def _layers(name: str, prefix: str, shapes: Mapping[str, Shape]) -> tuple[Layer, ...]:
    """The layers in their order; ``UserMistake`` for a tensor that is no weight or bias of a linear layer."""
    parts: dict[int | None, dict[str, Shape]] = {}
    for tensor, shape in sorted(shapes.items()):
        match = _PART.fullmatch(tensor.removeprefix(f"{prefix}."))
        if match is None:
            raise UserMistake(f"model {name}: {tensor} is no part of a head that is known here")
        number = None if match["number"] is None else int(match["number"])
        dimensions = 2 if match["part"] == "weight" else 1
        if len(shape) != dimensions or 0 in shape:
            raise UserMistake(
                f"model {name}: {tensor} has the shape {list(shape)}; a linear layer's {match['part']} has "
                f"{dimensions} dimension{'s' if dimensions > 1 else ''}"
            )
        parts.setdefault(number, {})[match["part"]] = shape
    numbers = sorted(number for number in parts if number is not None)
    expected = list(range(0, _APART * len(numbers), _APART))
    if (None in parts and numbers) or numbers != expected:
        raise UserMistake(
            f"model {name}: its head has {', '.join(sorted(shapes))}; known here are one linear layer "
            f"({prefix}.weight), and linear layers with a rectifier between two ({prefix}.0, {prefix}.2 …)"
        )
    if None in parts:
        return (_layer(name, prefix, parts[None]),)
    return tuple(_layer(name, f"{prefix}.{number}", parts[number]) for number in numbers)


def _layer(name: str, layer: str, parts: Mapping[str, Shape]) -> Layer:
    if "weight" not in parts:
        raise UserMistake(f"model {name}: its weights hold {layer}.bias and no {layer}.weight")
    outputs, inputs = parts["weight"]
    bias = parts.get("bias")
    if bias is not None and bias != (outputs,):
        raise UserMistake(
            f"model {name}: {layer}.bias has {bias[0]} numbers, and {layer}.weight gives {outputs}"
        )
    return Layer(layer, outputs, inputs, bias is not None)


def _check_chain(name: str, layers: tuple[Layer, ...], width: int | None) -> None:
    for layer in layers:
        if width is not None and layer.inputs != width:
            raise UserMistake(
                f"model {name}: {layer.name}.weight takes {layer.inputs} numbers, and what comes before it "
                f"gives {width}"
            )
        width = layer.outputs
