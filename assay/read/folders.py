"""Which files of a folder or a glob hold rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: Files that stand beside rows and describe them, or a model: those of ``datasets``, of Croissant
#: (mlcommons.org/croissant), and indices of a model's shards.
_DESCRIPTIONS = re.compile(
    r"dataset_infos?\.json|dataset_dict\.json|state\.json|croissant\.json|.*\.index\.json|readme(\..*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RowFiles:
    """The files to read, in the order in which they were given, and a line for each that is left out."""

    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def chosen(names: Iterable[str]) -> RowFiles:
    """The files that hold rows.

    >>> chosen(["train.jsonl", "dataset_info.json"])
    RowFiles(names=('train.jsonl',), left_out=('dataset_info.json: describes data, and is not read',))
    """
    kept: list[str] = []
    left_out: list[str] = []
    for name in names:
        if _DESCRIPTIONS.fullmatch(name.rpartition("/")[2]):
            left_out.append(f"{name}: describes data, and is not read")
        else:
            kept.append(name)
    return RowFiles(tuple(kept), tuple(left_out))
