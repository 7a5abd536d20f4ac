"""Convert: records out of the inputs."""

from __future__ import annotations

from typing import Any

import assay.read.convert
from assay.core.progress import Progress
from assay.read.inventory import Inventory
from assay.storage.home import Home, digest_of_bytes
from assay.storage.manifests import Converted, to_json
from tasks.stage import Finished, as_json, run_stage, stage_task


@stage_task(name="convert", retries=2, retry_delay_seconds=[1, 5])
def convert_task(
    key: str, inventory: Inventory, home: Home, limit: int | None, strict: bool, progress: Progress
) -> Any:
    """The convert stage's manifest as JSON."""
    converted = assay.read.convert.convert(
        inventory, home=home, limit=limit, strict=strict, progress=progress
    )
    return as_json(converted, key)


def convert_key(inventory: Inventory, *, limit: int | None, strict: bool) -> str:
    """A digest of all that the records depend on. A strict run must not take what a lenient one kept."""
    return digest_of_bytes(
        b"convert %d" % assay.read.convert.STAGE_VERSION,
        # Not when the files were changed last: equal bytes give equal records.
        to_json((inventory.files, inventory.sources, inventory.shards)),
        to_json((limit, strict)),
    )


def is_current(converted: Converted, home: Home) -> bool:
    """Whether all records and turns are still as they were written."""
    return all(piece.records.is_intact(home) and piece.turns.is_intact(home) for piece in converted.pieces)


def convert(
    inventory: Inventory, *, home: Home, limit: int | None, strict: bool, progress: Progress
) -> Finished[Converted]:
    """The records of the inventory."""
    return run_stage(
        convert_task,
        Converted,
        key=convert_key(inventory, limit=limit, strict=strict),
        home=home,
        is_current=lambda converted: is_current(converted, home),
        say=progress.say,
        arguments={
            "inventory": inventory,
            "home": home,
            "limit": limit,
            "strict": strict,
            "progress": progress,
        },
    )
