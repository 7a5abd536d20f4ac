"""The tensors that lie in a model's folder, read from the headers of its files without loading one."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from assay.rewards.fingerprint import WEIGHTS

#: A safetensors file begins with the length of its header: 8 bytes, little-endian (its documentation).
_LENGTH_BYTES = 8

#: The one file of weights, where there is no index. transformers looks for it first.
_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"

Shape = tuple[int, ...]


def shapes(path: Path) -> dict[str, Shape]:
    """The shape of every tensor in a safetensors file, by name; nothing of a file that is none.

    Loading such a file says what is wrong with it.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
            return {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}
        except (ValueError, AttributeError, KeyError, TypeError):
            return {}


def by_file(folder: Path) -> Mapping[str, Mapping[str, Shape]]:
    """The shapes in every safetensors file of the folder, by the file's name."""
    return {path.name: shapes(path) for path in sorted(folder.glob(WEIGHTS))}


def loaded(folder: Path, files: Collection[str]) -> set[str]:
    """Those of the folder's ``files`` that transformers loads."""
    index = folder / _INDEX
    if _WHOLE in files or not index.is_file():
        return {_WHOLE}.intersection(files)
    return set(json.loads(index.read_bytes())["weight_map"].values()).intersection(files)
