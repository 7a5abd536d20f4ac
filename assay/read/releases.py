"""Releases: what is new since the last run, in a dated folder of its own beside the earlier ones.

    results/nightly/2026-03-01/    a whole export with its manifest
    results/nightly/2026-03-02/    of the files that no earlier release holds

A file is known by its content: the digests of the inputs of every release below the folder. One that has
grown is new as a whole; its turns that were scored before are not scored again. What a run could use nothing
of (``2026-03-01.unusable``) is no release: its inputs are new to the next run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import date
from pathlib import Path

import msgspec

from assay.core.errors import OutputRefused
from assay.read.inventory import Inventory
from assay.storage.regular import NotRegular, read_regular
from assay.storage.run_manifest import RUN_MANIFEST, UNUSABLE, RunManifest, is_as_written
from assay.storage.sealed import DIGEST, Altered, decoded


def next_release(folder: Path, day: date) -> Path:
    """Where a release of that day goes: ``2026-03-01``, then ``2026-03-01-2`` and so on."""
    number = 1
    while (path := folder / (f"{day}-{number}" if number > 1 else f"{day}")).exists():
        number += 1
    return path


def released(folder: Path) -> set[str]:
    """Digests of all inputs of the releases in ``folder``; OutputRefused for a manifest that is none."""
    digests: set[str] = set()
    for path in sorted(folder.glob(f"[!.]*/{RUN_MANIFEST}")):
        if path.parent.name.endswith(UNUSABLE):
            continue
        try:
            content = decoded(read_regular(path))
            manifest = msgspec.convert(content, RunManifest)
        except (Altered, msgspec.ValidationError, NotRegular) as error:
            raise OutputRefused(
                f"{path}: is not the manifest of a release ({error}), so what is new cannot be told; move "
                "that folder away"
            ) from error
        if not is_as_written(content):
            raise OutputRefused(
                f"{path}: was altered after the release was written, so what is new cannot be told. Put "
                f"it back, or move that folder away. If you changed it on purpose, remove its {DIGEST}"
            )
        digests.update(one.digest for one in manifest.inputs)
    return digests


def new_only(inventory: Inventory, known: Collection[str]) -> Inventory:
    """The inventory without the files whose content is known."""
    kept = [number for number, file in enumerate(inventory.files) if file.digest not in known]
    place = {number: new for new, number in enumerate(kept)}
    return dataclasses.replace(
        inventory,
        files=tuple(inventory.files[number] for number in kept),
        sources=tuple(inventory.sources[number] for number in kept),
        stamps=tuple(inventory.stamps[number] for number in kept),
        shards=tuple(
            dataclasses.replace(shard, file=place[shard.file])
            for shard in inventory.shards
            if shard.file in place
        ),
    )
