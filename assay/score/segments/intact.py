"""Whether a segment's file is what its name says."""

from __future__ import annotations

from pathlib import Path

from assay.core.digests import digest_of_file


def is_intact(path: Path) -> bool:
    """Whether the file is there and its digest is its name."""
    try:
        return digest_of_file(path) == path.stem
    except FileNotFoundError:
        return False
