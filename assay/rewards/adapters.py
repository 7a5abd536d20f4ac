"""A LoRA adapter's folder: of which model it is, and how the two together are read.

Trainers save an adapter without the model that it changes. What needs peft is in ``local.merging``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from assay.core.errors import UserMistake
from assay.rewards import tensors
from assay.rewards.adapter_settings import CONFIG
from assay.rewards.families import HEAD_IN_WEIGHTS, SEQUENCE_CLASSIFICATION
from assay.rewards.head_in_weights import SCORE, VALUE_HEAD, Layer, WeightsHead, head_in
from assay.storage.regular import read_json_object

#: What peft writes its tensors to.
WEIGHTS = "adapter_model.safetensors"
_WEIGHTS_OF_ANY_KIND = "adapter_model"

#: What LLaMA-Factory saves a value head to.
_VALUE_HEAD_FILE = "value_head.safetensors"

#: What the names of its tensors begin with, before the name that its model has.
_WITHIN = "base_model.model."

_MERGE = "`PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)`"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter in a folder."""

    folder: Path
    base: str
    """A folder, or an id on the Hub."""
    revision: str | None
    """Of the base on the Hub, where the adapter says."""
    task: str | None
    """What it was trained as: peft's ``task_type``."""


def adapter_in(name: str, folder: Path) -> Adapter | None:
    """The adapter in that folder; None where it holds a whole model, or neither.

    ``UserMistake`` for an adapter that cannot be merged here, with the way on.
    """
    if not (folder / CONFIG).is_file():
        return None
    weights = tensors.by_file(folder)
    if (folder / "config.json").is_file() and any(
        not one.startswith(_WEIGHTS_OF_ANY_KIND) and one != _VALUE_HEAD_FILE for one in weights
    ):
        # The tensors of an adapter beside a whole model are found when that is loaded.
        return None
    settings = read_json_object(folder / CONFIG)
    base = settings.get("base_model_name_or_path")
    what = (
        f"model {name}: {folder} holds a LoRA adapter ({CONFIG}) of {str(base)[:200]}"
        if isinstance(base, str) and base
        else f"model {name}: {folder} holds an adapter ({CONFIG}) of a base model that it does not name"
    )
    merged_by_hand = f"merge it into its base, loaded by the class that it was trained with: {_MERGE}"
    if not isinstance(base, str) or not base:
        raise UserMistake(f"{what}: {merged_by_hand}")
    if settings.get("peft_type") != "LORA":
        raise UserMistake(
            f"{what}; it is of the kind {str(settings.get('peft_type'))[:50]}, and only LoRA is merged here: "
            f"{merged_by_hand}"
        )
    if importlib.util.find_spec("peft") is None:
        raise UserMistake(
            f"{what}, and no whole model. Install the extra `peft` (`pip install 'assay[peft]'`), and it is "
            f"merged whenever it is loaded; or {merged_by_hand}"
        )
    strange = sorted(set(weights) - {WEIGHTS, _VALUE_HEAD_FILE})
    if strange or WEIGHTS not in weights:
        found = ", ".join(strange) or "none"
        raise UserMistake(f"{what}; its weights are expected in {WEIGHTS}; found: {found}")
    revision = settings.get("revision")
    return Adapter(
        folder, base, revision if isinstance(revision, str) else None, settings.get("task_type") or None
    )


def head_of(name: str, adapter: Adapter, width: int | None) -> tuple[WeightsHead, str]:
    """The head of the adapted model, and the family that reads it; ``UserMistake`` where there is none.

    ``width``: of the states of the model that it changes; None: not known here.
    """
    shapes = tensors.by_file(adapter.folder)[WEIGHTS]
    if adapter.task == "SEQ_CLS":
        # Whatever its settings say, peft saves the head of a classifier with its adapter.
        weight = next((shape for tensor, shape in shapes.items() if is_score(tensor)), ())
        if len(weight) != 2:
            raise UserMistake(
                f"model {name}: the LoRA adapter of {adapter.base} in {adapter.folder} holds no "
                "score.weight, so the score would be noise"
            )
        layer = Layer(SCORE, weight[0], weight[1], has_bias=False)
        return WeightsHead(SCORE, (layer,), frozenset({WEIGHTS})), SEQUENCE_CLASSIFICATION
    found = head_in(name, adapter.folder, width)
    if found is None or found.prefix != VALUE_HEAD or found.outputs != 1:
        raise UserMistake(
            f"model {name}: {adapter.folder} holds a LoRA adapter ({CONFIG}) of {adapter.base}, and no head "
            f"that gives a score: it was trained as {adapter.task or 'nothing that it names'}, mostly for a "
            f"chat model. Read are those of a classifier (SEQ_CLS), and those with a {_VALUE_HEAD_FILE}"
        )
    return found, HEAD_IN_WEIGHTS


def is_score(tensor: str) -> bool:
    """Whether the adapter's tensor is the weight of its classifier's head."""
    return model_tensor(tensor) == f"{SCORE}.weight"


def model_tensor(tensor: str) -> str:
    """What the adapted model calls that tensor of an adapter's file."""
    return tensor.removeprefix(_WITHIN)
