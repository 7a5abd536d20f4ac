"""A segment in a folder is whole or not there, also where the disk ends in the middle of it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from assay.core.digests import digest_of_file
from assay.core.errors import AssayError
from assay.score.segments.folder import SegmentFolder


def test_a_full_disk_is_named_and_leaves_no_part_of_a_segment(tmp_path: Path) -> None:
    segments = SegmentFolder(tmp_path / "scores")
    digest = segments.keep(b"one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(AssayError, match=rf"{tmp_path}/scores: File too large\. Make room"):
            segments.keep(b"a" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (path,) = (tmp_path / "scores").iterdir()
    assert path.name == f"{digest}.parquet"
    assert digest_of_file(path) == digest
