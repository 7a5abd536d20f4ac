"""Releases: each holds what is new since the earlier ones, in a dated folder beside them.

    results/nightly/2026-03-01/    a whole export with its manifest
    results/nightly/2026-03-02/    the files that no earlier release holds

A file is known by the digest of its content, which the manifest of a release holds. A file that has grown is
new as a whole, but its turns that have scores are not scored again. A run without usable records
(``2026-03-01.unusable``) makes no release: its inputs are new to the next run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import date
from pathlib import Path

from assay.core.errors import OutputRefused
from assay.read.inventory import Inventory
from assay.storage.run_manifest import RUN_MANIFEST, UNUSABLE, NoManifest, read_run_manifest
from assay.storage.sealed import DIGEST, Altered


def next_release(folder: Path, day: date) -> Path:
    """The folder for a release of that day: ``2026-03-01``, then ``2026-03-01-2`` and so on."""
    number = 1
    while (path := folder / (f"{day}-{number}" if number > 1 else f"{day}")).exists():
        number += 1
    return path


def released(folder: Path) -> set[str]:
    """Digests of all inputs of the releases in ``folder``; OutputRefused for a manifest that was altered."""
    digests: set[str] = set()
    for path in sorted(folder.glob(f"[!.]*/{RUN_MANIFEST}")):
        if path.parent.name.endswith(UNUSABLE):
            continue
        try:
            manifest = read_run_manifest(path)
        except NoManifest as error:
            raise OutputRefused(
                f"{path}: is not the manifest of a release ({error}), so Assay cannot know which inputs are "
                "new. Move that folder away"
            ) from error
        except Altered as error:
            raise OutputRefused(
                f"{path}: was altered after the release was written, so Assay cannot know which inputs "
                "are new. Restore it, or move that folder away. If you changed it on purpose, remove "
                f"its {DIGEST}"
            ) from error
        digests.update(one.digest for one in manifest.inputs)
    return digests


def new_only(inventory: Inventory, known: Collection[str]) -> Inventory:
    """The inventory without the files whose digests are known."""
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
