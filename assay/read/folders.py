"""Which files of a folder, a prefix or a glob hold rows.

A folder that ``datasets.save_to_disk`` wrote says so itself: ``state.json`` names its files, and
``dataset_dict.json`` the folders of its splits (``arrow_dataset.py`` and ``dataset_dict.py`` of huggingface
datasets). What they do not name is left out: ``datasets`` keeps its caches there too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from assay.core.errors import UserMistake

T = TypeVar("T")

_INFO = "dataset_info.json"
_STATE = "state.json"
_SPLITS = "dataset_dict.json"
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


class _DataFile(msgspec.Struct):
    filename: str


class _State(msgspec.Struct):
    """The content of a ``state.json``, as far as it says where rows are."""

    data_files: list[_DataFile] = msgspec.field(name="_data_files")
    indices: list[_DataFile] | None = msgspec.field(name="_indices_data_files", default=None)


class _SplitNames(msgspec.Struct):
    splits: list[str]


def files_of_rows(names: Iterable[str], read: Callable[[str], bytes]) -> RowFiles:
    """The files that hold rows. ``read`` gives the content of a small one.

    UserMistake where a saved data set lacks a file or a split, or cannot be understood.

    >>> files_of_rows(["train.jsonl", "dataset_info.json"], read=lambda name: b"")
    RowFiles(names=('train.jsonl',), left_out=('dataset_info.json: describes data, and is not read',))
    """
    given = list(names)
    by_folder: dict[str, set[str]] = defaultdict(set)
    for name in given:
        folder, _, last = name.rpartition("/")
        by_folder[folder].add(last)
    shards = {
        folder: _shards(folder, inside, read)
        for folder, inside in by_folder.items()
        if _STATE in inside and any(last.endswith(".arrow") or last == _INFO for last in inside)
    }
    splits = {
        folder: _splits(folder, by_folder.keys(), read)
        for folder, inside in by_folder.items()
        if _SPLITS in inside and any(one.startswith(_in(folder, "")) for one in shards)
    }
    kept: list[str] = []
    left_out: list[str] = []
    for name in given:
        folder, _, last = name.rpartition("/")
        if _DESCRIPTIONS.fullmatch(last):
            left_out.append(f"{name}: describes data, and is not read")
        elif last not in (shards.get(folder) or {last}):
            left_out.append(f"{name}: is not read, since {_in(folder, _STATE)} does not name it")
        elif data_set := _not_a_split(name, splits):
            left_out.append(f"{name}: is not read, since {_in(data_set, _SPLITS)} names no such split")
        else:
            kept.append(name)
    return RowFiles(tuple(kept), tuple(left_out))


def _in(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _not_a_split(name: str, splits: Mapping[str, Sequence[str]]) -> str | None:
    """The folder of the data set that the file lies in without being of one of its splits; else None."""
    for folder, known in splits.items():
        inside = _in(folder, "")
        if name.startswith(inside) and name.removeprefix(inside).partition("/")[0] not in known:
            return folder
    return None


def _shards(folder: str, inside: Collection[str], read: Callable[[str], bytes]) -> set[str]:
    """The names of a saved data set's files; empty where ``state.json`` is something else."""
    path = _in(folder, _STATE)
    try:
        state = _decoded(path, read, _State)
    except UserMistake:
        if any(name.endswith(".arrow") for name in inside):
            raise
        return set()
    if state.indices:
        raise UserMistake(
            f"{path}: the data set is saved with a choice of its rows, which Assay does not follow. "
            "Load it with datasets.load_from_disk, call flatten_indices(), and save it again."
        )
    shards = {one.filename for one in state.data_files}
    if missing := sorted(shards - set(inside)):
        raise UserMistake(
            f"{_in(folder, missing[0])}: is missing, and {path} names it "
            f"({len(missing)} of {len(shards)} files are missing). Copy the data set's folder again."
        )
    return shards


def _splits(folder: str, folders: Collection[str], read: Callable[[str], bytes]) -> list[str]:
    """The names of a saved data set's splits."""
    path = _in(folder, _SPLITS)
    splits = _decoded(path, read, _SplitNames).splits
    if missing := [split for split in splits if _in(folder, split) not in folders]:
        raise UserMistake(
            f"{_in(folder, missing[0])}: is missing, and {path} names this split. "
            "Copy the data set's folder again."
        )
    return splits


def _decoded(path: str, read: Callable[[str], bytes], kind: type[T]) -> T:
    try:
        return msgspec.json.decode(read(path), type=kind)
    except OSError as error:
        raise UserMistake(f"{path}: cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserMistake(
            f"{path}: does not say which files hold the rows ({error}). Name the files that you mean."
        ) from error
