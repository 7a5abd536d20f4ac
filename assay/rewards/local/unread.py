"""Tensors of a model's files that no layer takes: the model is refused, unless they are known to do no harm.

What such a tensor was trained to do to the score would be left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from assay.core.errors import ModelFault
from assay.rewards import tensors
from assay.rewards.head_in_weights import is_of_a_head
from assay.rewards.not_read import why_not_taken
from assay.rewards.spec import LocalSpec
from assay.rewards.tensors import Shape


class _Harmless(NamedTuple):
    pattern: str
    """All of such a tensor's name."""
    why: str
    dimensions: int | None = None
    """How many it has; None: any number."""


HARMLESS = (
    _Harmless(r".*rotary_emb\.inv_freq", "angles of the position embedding, computed when loading"),
    _Harmless(r".*\bposition_ids", "the numbers 0, 1, 2, …, computed when loading"),
    _Harmless(r".*\.(attn|attention)\.bias", "the mask of GPT-2 and GPT-NeoX, computed when loading", 4),
    _Harmless(r".*\.(attn|attention)\.masked_bias", "the number that this mask puts in", 0),
    _Harmless(
        r"(lm_head|embed_out)\.(weight|bias)", "the head of the language model that it was trained from"
    ),
    _Harmless(r"(cls\.predictions|(lm|mask)_predictions)\..*", "the head of an encoder's pretraining"),
)

#: Files beside the weights that hold the same weights once more, in the naming of another program.
HARMLESS_FILES = {r"consolidated.*\.safetensors": "the same weights in Mistral's own naming"}


def check_all_taken(
    spec: LocalSpec, not_taken: Iterable[str], head_files: frozenset[str] = frozenset()
) -> None:
    """Raise ``ModelFault`` for a tensor of the folder that no layer takes and that could do harm.

    ``not_taken`` are those that transformers found in the files that it loads, and had no layer for.
    ``head_files`` are those that a built head is read from; of one that transformers does not load, every
    tensor is a head's.
    """
    files = tensors.by_file(Path(spec.folder))
    loaded = tensors.loaded(Path(spec.folder), files)
    for file in head_files - loaded:
        not_taken = {*not_taken, *(name for name in files[file] if not is_of_a_head(name))}
    loaded = loaded | head_files
    shapes = {name: shape for file in loaded for name, shape in files[file].items()}
    for name in sorted(not_taken):
        if not _is_harmless(name, shapes):
            raise ModelFault(why_not_taken(spec.name, name, spec.family))
    for file in files:
        if file not in loaded and not any(re.fullmatch(pattern, file) for pattern in HARMLESS_FILES):
            held = f" ({min(files[file])}, …)" if files[file] else ""
            raise ModelFault(
                f"model {spec.name}: {file}{held} lies beside the weights that are loaded, and no layer "
                "takes what it holds; whatever that was trained to do to the score would be left out. If it "
                "is no part of the model, move it elsewhere"
            )


def _is_harmless(name: str, shapes: Mapping[str, Shape]) -> bool:
    # The part of a name that stands for the whole backbone may have been taken off.
    shape = next((shape for full, shape in shapes.items() if f".{full}".endswith(f".{name}")), None)
    return any(
        re.fullmatch(one.pattern, name)
        and (one.dimensions is None or (shape is not None and len(shape) == one.dimensions))
        for one in HARMLESS
    )
