"""Remove what stages made and no run has used for days. It is made again where a run needs it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from assay.core.errors import StoreFault
from assay.storage.home import Home

#: No sooner, whatever the operator says: a run that works for days goes on reading what it made at first.
LEAST_DAYS = 7

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Removed:
    """How many files are gone, and how many bytes they held."""

    files: int
    size: int
    fault: str | None = None
    """Why old files in the bucket could not be removed; None without a fault."""


def remove_old_artifacts(home: Home, days: int) -> Removed:
    """What was removed: files and manifests of stages that no run has read or written for ``days`` days.

    They lie in ``home.artifacts`` and ``home.manifests``, and in the bucket of artifacts, if there is one.
    Scores, plans and results lie elsewhere and stay. A file that cannot be removed stays too.
    """
    days = max(days, LEAST_DAYS)
    before = time.time() - days * _DAY_SECONDS
    files = size = 0
    # Other runs remove files and folders meanwhile: os.walk passes over a folder that is gone.
    for folder, _, names in chain(os.walk(home.artifacts), os.walk(home.manifests)):
        for path in map(Path(folder).joinpath, names):
            # The folder stays, for a run may be about to write there.
            with suppress(OSError):
                about = path.lstat()
                if max(about.st_mtime, about.st_atime) >= before:
                    continue
                path.unlink()
                files, size = files + 1, size + about.st_size
    if home.artifact_store is None:
        return Removed(files, size)
    from assay.storage.bucket_artifacts import BucketArtifacts

    try:
        for removed in BucketArtifacts(home.artifact_store).remove_unused(days, but=home.score_store):
            files, size = files + 1, size + removed
    except StoreFault as fault:
        return Removed(files, size, str(fault))
    return Removed(files, size)
