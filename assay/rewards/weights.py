"""How much memory a model's weights take, told from their files without loading them."""

from __future__ import annotations

import json
import math
from pathlib import Path

from assay.rewards.fingerprint import WEIGHTS
from assay.rewards.protocol import ModelSpec

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

#: A safetensors file begins with the length of its header: 8 bytes, little-endian (its documentation).
_LENGTH_BYTES = 8


def weights_bytes(spec: ModelSpec) -> int:
    """Bytes of all weights in the precision that they are computed in; 0 for a service."""
    if spec.endpoint is not None:
        return 0
    return sum(_values(path) for path in Path(spec.folder).glob(WEIGHTS)) * _ITEM_BYTES[spec.dtype]


def _values(path: Path) -> int:
    """Numbers in a safetensors file; 0 for one that is none, which loading it will tell."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
            return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
        except (ValueError, AttributeError, KeyError, TypeError):
            return 0
