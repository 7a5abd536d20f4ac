"""Where a score store's segments are kept: in a folder, or on S3.

A segment is named by the digest of its bytes and never changed, so that it is whole or not there, and
whoever reads it can tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from assay.core.errors import StoreRefusal, UserMistake
from assay.core.progress import Progress
from assay.storage.home import Home
from assay.storage.stage import RunContext


class Segments(Protocol):
    """The segments of one fingerprint."""

    place: str
    """Where they are, as a person would look for them."""

    def holds_any(self) -> bool:
        """Whether there is a segment, intact or not."""

    def intact(self, progress: Progress | None) -> list[Path]:
        """Files with every segment that matches its name, ordered by name. A line names each of the others.

        Without ``progress`` a damaged one is only left out.
        """

    def hold(self, digests: Iterable[str]) -> bool:
        """Whether all of these are there and match their names."""

    def keep(self, data: bytes) -> str:
        """The digest of the data, under which it is a segment from now on."""

    def planning(self, context: RunContext) -> AbstractContextManager[RunContext]:
        """Hold the one lock of this fingerprint; a line says where that takes waiting.

        A run that is no longer wanted stops waiting. In the context that is yielded, ``leave_if_unwanted``
        also raises Resumable where the lock was lost meanwhile.
        """


def segments_of(home: Home, fingerprint: str) -> Segments:
    """The segments of that fingerprint, where this home's are kept."""
    if home.score_store is None:
        from assay.score.segments.folder import SegmentFolder

        return SegmentFolder(home.scores / fingerprint)
    from assay.score.segments.bucket import SegmentBucket
    from assay.storage.s3 import Objects

    return SegmentBucket(Objects(home.score_store).below(fingerprint), home.copies / fingerprint)


def check_store(home: Home) -> None:
    """Raise UserMistake where the score store is on S3 and refuses, StoreFault where nobody answers."""
    if home.score_store is None:
        return
    from assay.storage.s3 import Objects

    try:
        Objects(home.score_store).check()
    except StoreRefusal as error:
        raise UserMistake(f"ASSAY_SCORE_STORE: {error}") from error
