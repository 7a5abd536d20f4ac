"""A LoRA adapter merged into its model, each of its tensors accounted for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from assay.core.errors import ModelFault
from assay.rewards import tensors
from assay.rewards.adapters import WEIGHTS, model_tensor
from assay.rewards.spec import LocalSpec


def tensors_of(spec: LocalSpec) -> frozenset[str]:
    """What the model calls the tensors that its adapter brings."""
    assert spec.adapter is not None
    return frozenset(map(model_tensor, tensors.shapes(Path(spec.adapter) / WEIGHTS)))


def merged(model: Any, spec: LocalSpec) -> Any:
    """The model with the adapter of ``spec`` merged in, in the model's own precision.

    ``ModelFault`` where a tensor of the adapter's file is not what the model now holds.
    """
    assert spec.adapter is not None
    try:
        import peft
    except ImportError as error:
        raise ModelFault(
            f"model {spec.name}: it is a LoRA adapter, and peft is not installed here: install assay[peft]"
        ) from error
    try:
        with warnings.catch_warnings():
            # What it warns of, a tensor without a place, is held against the file below.
            warnings.simplefilter("ignore")
            adapted = peft.PeftModel.from_pretrained(model, spec.adapter)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ModelFault(
            f"model {spec.name}: its adapter does not fit its base: {' '.join(str(error).split())[:500]}"
        ) from error
    held = peft.get_peft_model_state_dict(adapted)
    file = safetensors.torch.load_file(Path(spec.adapter) / WEIGHTS)
    for name in sorted(held.keys() ^ file.keys()):
        where = "its adapter holds" if name in file else "its adapter lacks"
        raise ModelFault(
            f"model {spec.name}: {where} {name}, where its settings and its base say otherwise; what it was "
            "trained to do to the score would be left out"
        )
    for name, tensor in file.items():
        if not torch.equal(held[name].cpu(), tensor.to(held[name].dtype)):
            raise ModelFault(f"model {spec.name}: {name} of its adapter is not what the model was given")
    return adapted.merge_and_unload()
