"""Export: every result file, built beside the output folder unless the folder holds them already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import assay.export
from assay.export.files import ExportedFile
from assay.export.folder import OutputFolder
from assay.storage.home import Home, digest_of_bytes
from assay.storage.manifests import Converted, Filtered, Scored, to_json
from tasks.stage import as_json, run_stage, stage_task


class Export(NamedTuple):
    """The result files, and where they wait to be published."""

    files: dict[str, ExportedFile]
    staging: Path | None
    """None where the output folder holds these very files."""


@stage_task(name="export", retries=2, retry_delay_seconds=[1, 5])
def export_task(
    key: str,
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    home: Home,
    folder: OutputFolder,
    built: list[Path],
    exports: Sequence[str],
    stop_after: str | None,
) -> Any:
    """The result files by name, as JSON. The folder they are in goes to ``built``, never to the cache."""
    staging = folder.staging()
    files = assay.export.build(
        converted, scored, filtered, home=home, staging=staging, exports=exports, stop_after=stop_after
    )
    built.append(staging)
    return as_json(files, key)


def export_key(
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    *,
    exports: Sequence[str],
    stop_after: str | None,
) -> str:
    """A digest of all that the result files depend on; where they are written is not among it."""
    scores = [piece.scores.digest for piece in scored.pieces] if scored else None
    decisions = [piece.decisions.digest for piece in filtered.pieces]
    attributes = scored.attributes if scored else None
    return digest_of_bytes(
        b"export %d" % assay.export.STAGE_VERSION,
        converted.digest.encode(),
        to_json((attributes, scores, decisions, sorted(exports), stop_after)),
    )


def export(
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    *,
    home: Home,
    folder: OutputFolder,
    exports: Sequence[str],
    stop_after: str | None,
) -> Export:
    """The result files, for ``folder.publish`` or, where it holds them, ``folder.refresh``."""
    built: list[Path] = []
    finished = run_stage(
        export_task,
        dict[str, ExportedFile],
        key=export_key(converted, scored, filtered, exports=exports, stop_after=stop_after),
        home=home,
        is_current=folder.holds,
        # Files that are not in this folder are no loss: another run may have put them into another.
        say=lambda line: None,
        arguments={
            "converted": converted,
            "scored": scored,
            "filtered": filtered,
            "home": home,
            "folder": folder,
            "built": built,
            "exports": exports,
            "stop_after": stop_after,
        },
    )
    return Export(finished.manifest, built[-1] if built else None)
