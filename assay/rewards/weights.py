"""How much memory a model's weights take, told from their files without loading them."""

from __future__ import annotations

import math
from pathlib import Path

from assay.rewards import tensors
from assay.rewards.protocol import ModelSpec

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def weights_bytes(spec: ModelSpec) -> int:
    """Bytes of all weights in the precision that they are computed in; 0 for a service."""
    if spec.endpoint is not None:
        return 0
    files = tensors.by_file(Path(spec.folder))
    values = sum(math.prod(shape) for shapes in files.values() for shape in shapes.values())
    return values * _ITEM_BYTES[spec.dtype]
