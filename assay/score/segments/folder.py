"""Segments as files of one folder. All machines that write them share its file system.

A segment is written to a temporary name and renamed. One that no longer matches its name is set aside.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from assay.core.digests import digest_of_content
from assay.core.progress import Progress
from assay.score.segments.intact import is_intact
from assay.storage.disk import full_disk_named
from assay.storage.home import sync
from assay.storage.private import FILE, make_private, opener
from assay.storage.stage import RunContext

_SET_ASIDE = "set-aside"
_WAIT_NOTICE_SECONDS = 1.0
_WAITING = "another run is scoring with this model; waiting for it to finish, then taking its scores"


class SegmentFolder:
    """The segments of one fingerprint, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        self._folder = folder

    def holds_any(self) -> bool:
        """Whether there is any segment, intact or not."""
        return any(self._folder.glob("*.parquet"))

    def present(self, progress: Progress | None) -> list[Path]:
        """The file of every segment, by name. Whether it is intact is not looked at."""
        return sorted(self._folder.glob("*.parquet"))

    def damaged(self, paths: Iterable[Path], progress: Progress | None) -> set[Path]:
        """Those that do not match their names. With ``progress``, set them aside and report them."""
        found = {path for path in paths if not is_intact(path)}
        if progress is None:
            return found
        for path in sorted(found):
            aside = self._folder / _SET_ASIDE / path.name
            make_private(aside.parent)
            with suppress(FileNotFoundError):
                path.replace(aside)
                progress.say(
                    f"score store: segment {path} is damaged; moved to {aside}, its turns are scored again"
                )
        return found

    def hold(self, digests: Iterable[str]) -> bool:
        """Whether all these segments are there."""
        return all((self._folder / f"{digest}.parquet").is_file() for digest in digests)

    def keep(self, data: bytes) -> str:
        """Store the data as a segment. Returns its digest, which is its name."""
        make_private(self._folder)
        digest = digest_of_content(data)
        temporary = self._folder / f".{uuid.uuid4().hex}.tmp"
        with full_disk_named(self._folder):
            try:
                with open(temporary, "xb", opener=opener) as file:
                    file.write(data)
                sync(temporary)
                temporary.replace(self._folder / f"{digest}.parquet")
            finally:
                temporary.unlink(missing_ok=True)
        return digest

    @contextmanager
    def planning(self, context: RunContext) -> Iterator[RunContext]:
        """Hold the lock of this fingerprint, and remove temporary files that killed writers left.

        The kernel holds the lock, and releases it when the process ends, however that happens.
        """
        make_private(self._folder)
        lock = filelock.FileLock(self._folder / ".lock", mode=FILE)
        reported = False
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_WAIT_NOTICE_SECONDS)
            except filelock.Timeout:
                if not reported:
                    context.say(_WAITING)
                reported = True
                context.leave_if_unwanted()
        try:
            for leftover in self._folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            yield context
        finally:
            lock.release()
