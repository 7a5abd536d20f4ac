"""How large a model is, read from its files without loading them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from assay.rewards import tensors
from assay.rewards.spec import LocalSpec

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

#: Tables of which a token takes one row (``wte``, ``wpe``: GPT-2's), and a head over the vocabulary, which is
#: applied at most where a score is read. They are large and cost next to nothing.
_LOOKED_UP = re.compile(r"embed|\bwte\b|\bwpe\b|lm_head")


def weights_bytes(spec: LocalSpec) -> int:
    """Bytes of all weights in the precision that they are computed in."""
    return sum(size for _, size in _tensors(spec)) * _ITEM_BYTES[spec.dtype]


def multiplied_weights(spec: LocalSpec) -> int:
    """How many weights every token is multiplied with: all but those of embeddings.

    Of a mixture of experts all are counted, though a token meets a few of them.
    """
    return sum(size for name, size in _tensors(spec) if not _LOOKED_UP.search(name))


def _tensors(spec: LocalSpec) -> Iterator[tuple[str, int]]:
    """Yield name and number of values of every tensor in the model's files."""
    for shapes in tensors.by_file(Path(spec.folder)).values():
        yield from ((name, math.prod(shape)) for name, shape in shapes.items())
