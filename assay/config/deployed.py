"""The paths and models that a run of a deployment may name.

Anybody who can open Prefect's pages can start such a run. Its paths begin with the name of a folder that the
operator opened, and stay inside it: ``chats/2026/*.jsonl`` with ``ASSAY_DATA_ROOTS=chats=/srv/chats``. Its
model is one of the operator's lists or of the catalog. On the command line, users have their own rights:
there a path is a path, unless roots are set.

This does not guard against somebody who changes the folders during a run: who can do that can do more anyway.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.rewards.catalog import CATALOG
from assay.storage.home import contains


class Places(NamedTuple):
    """Where a run reads and writes."""

    inputs: list[str]
    """Paths and globs."""
    output: str
    within: tuple[str, ...] | None
    """Folders (without links), and addresses. Every input must lie in one of them; None: anywhere."""


class GoldenPlaces(NamedTuple):
    """The files of golden rows that ``verify`` writes or reads."""

    record: str | None
    check: str | None


def places(inputs: list[str], output: str, settings: Settings, *, deployed: bool) -> Places:
    """The inputs and the output, inside the operator's roots if there are any.

    UserMistake for a path that leads out of the roots, and for a run of a deployment without roots.
    """
    if deployed:
        _require(settings.data_roots, "ASSAY_DATA_ROOTS")
        _require(settings.output_roots, "ASSAY_OUTPUT_ROOTS")
    within = None
    if settings.data_roots:
        inputs = [_inside(given, settings.data_roots, "input", "ASSAY_DATA_ROOTS") for given in inputs]
        within = tuple(
            root if isinstance(root, str) else os.path.realpath(root) for root in settings.data_roots.values()
        )
    if settings.output_roots:
        output = _inside(output, settings.output_roots, "output", "ASSAY_OUTPUT_ROOTS", below=True)
    return Places(inputs, output, within)


def golden_places(
    record: str | None, check: str | None, settings: Settings, *, deployed: bool
) -> GoldenPlaces:
    """The files of golden rows, inside the operator's roots if there are any.

    They are written below an output root, and read from an output root or a data root. If two roots have the
    same name, the output root counts. UserMistake for a path that leads out of the roots, and for a run of a
    deployment that names a file without roots.
    """
    if deployed and record is not None:
        _require(settings.output_roots, "ASSAY_OUTPUT_ROOTS")
    if record is not None and settings.output_roots:
        record = _inside(record, settings.output_roots, "record", "ASSAY_OUTPUT_ROOTS", below=True)
    if check is not None:
        check = file_to_read(check, settings, option="check", what="golden rows", deployed=deployed)
    return GoldenPlaces(record, check)


def file_to_read(given: str, settings: Settings, *, option: str, what: str, deployed: bool) -> str:
    """The path of a file beside the inputs, inside the operator's roots if there are any.

    It is read from an output root or a data root of this machine. If two roots have the same name, the output
    root counts. UserMistake for a path that leads out of the roots, and for a run of a deployment without
    roots.
    """
    if deployed:
        _require({**settings.data_roots, **settings.output_roots}, "ASSAY_DATA_ROOTS")
    if not settings.data_roots and not settings.output_roots:
        return given
    readable: dict[str, Path | str] = dict(settings.output_roots)
    for name, root in settings.data_roots.items():
        if isinstance(root, Path):
            readable.setdefault(name, root)
    if not readable:
        raise UserMistake(
            f"{option} {given!r}: {what} are read from folders of this machine alone; the "
            "operator must name one, such as ASSAY_OUTPUT_ROOTS=results=/srv/results"
        )
    return _inside(given, readable, option, "ASSAY_DATA_ROOTS, ASSAY_OUTPUT_ROOTS")


def results_place(given: str, option: str, settings: Settings, *, deployed: bool) -> str:
    """A folder for results, or of results: below an output root, if the operator opened any.

    UserMistake for a path that leads out of the roots, and for a run of a deployment without roots.
    """
    if deployed:
        _require(settings.output_roots, "ASSAY_OUTPUT_ROOTS")
    if settings.output_roots:
        return _inside(given, settings.output_roots, option, "ASSAY_OUTPUT_ROOTS", below=True)
    return given


def _require(roots: Mapping[str, Path | str], variable: str) -> None:
    if not roots:
        raise UserMistake(
            f"{variable} is not set where this run was started, and a run of a deployment reads and "
            f"writes only in named folders; the operator must set it, such as {variable}=chats=/srv/chats"
        )


def _inside(
    given: str, roots: Mapping[str, Path | str], option: str, variable: str, *, below: bool = False
) -> str:
    """The path that ``given`` stands for. ``below`` refuses the root itself, because runs share it."""
    parts = PurePosixPath(given).parts
    what = f"{option} {given!r}"
    if "\0" in given:
        raise UserMistake(f"{what}: holds a NUL, which no path may hold")
    if not parts or given.startswith(("/", "~")):
        raise UserMistake(f"{what}: a path here begins with {_choices(roots)} ({variable})")
    if ".." in parts:
        raise UserMistake(f"{what}: '..' is not followed here; begin with {_choices(roots)}")
    name, rest = parts[0], parts[1:]
    if name not in roots:
        raise UserMistake(
            f"{what}: no folder here has the name {name!r}{did_you_mean(name, roots)}; "
            f"there are {_choices(roots)} ({variable})"
        )
    if below and not rest:
        raise UserMistake(f"{what}: name a folder inside {name}, such as {name}/first")
    if isinstance(address := roots[name], str):
        return "/".join([address, *rest])
    root = str(roots[name])
    path = os.path.join(glob.escape(root) if glob.has_magic("/".join(rest)) else root, *rest)
    if not contains([os.path.realpath(root)], os.path.realpath(os.path.join(root, *rest))):
        raise UserMistake(f"{what}: a link in it leads out of {name}, which is not allowed")
    return path


def _choices(names: Mapping[str, object]) -> str:
    return " or ".join(f"{name}/…" for name in names)


def model_named(name: str, settings: Settings) -> str:
    """The name, if it is in the operator's lists of models or in the catalog.

    UserMistake for any other name: a path, an address, a repository that the operator has not listed.
    """
    known = [*settings.model_folders, *settings.endpoints(), *CATALOG]
    if name not in known:
        raise UserMistake(
            f"model {name[:100]!r}: a run of a deployment takes a model by its name"
            f"{did_you_mean(name, known)}; the operator names folders in ASSAY_MODEL_FOLDERS, and "
            "services in the file that ASSAY_ENDPOINTS_FILE names"
        )
    return name
