"""The segments of a score store: in a folder, or on S3.

A segment is named by the digest of its bytes and never changes. So it is whole or not there, and every
reader can check it.
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
    """Their folder or address, for messages."""

    def holds_any(self) -> bool:
        """Whether there is any segment, intact or not."""

    def present(self, progress: Progress | None) -> list[Path]:
        """The files of all segments, in the order of the names. Whether they are intact is not looked at.

        ``progress`` reports each segment that is known to be damaged.
        """

    def damaged(self, paths: Iterable[Path], progress: Progress | None) -> set[Path]:
        """Those of these files that do not match their names. None of them may be read.

        ``progress`` reports each. Without ``progress`` nothing is moved.
        """

    def hold(self, digests: Iterable[str]) -> bool:
        """Whether all these segments are there. Who reads their values looks whether they are intact."""

    def keep(self, data: bytes) -> str:
        """Store the data as a segment. Returns its digest, which is its name."""

    def planning(self, context: RunContext) -> AbstractContextManager[RunContext]:
        """Hold the lock of this fingerprint, which one run can have at a time; report if that takes waiting.

        A run that is no longer wanted stops waiting. In the context that this yields, ``leave_if_unwanted``
        also raises Resumable where another run has taken the lock.
        """


def segments_of(home: Home, fingerprint: str) -> Segments:
    """The segments of that fingerprint, in the folder or bucket that this home uses."""
    if home.score_store is None:
        from assay.score.segments.folder import SegmentFolder

        return SegmentFolder(home.scores / fingerprint)
    from assay.score.segments.bucket import SegmentBucket
    from assay.storage.s3 import Objects

    return SegmentBucket(Objects(home.score_store).below(fingerprint), home.copies / fingerprint)


def check_store(home: Home) -> None:
    """Check a score store on S3: raise UserMistake where S3 refuses, StoreFault where it does not answer."""
    if home.score_store is None:
        return
    from assay.storage.s3 import Objects

    try:
        Objects(home.score_store).check()
    except StoreRefusal as error:
        raise UserMistake(f"ASSAY_SCORE_STORE: {error}") from error
