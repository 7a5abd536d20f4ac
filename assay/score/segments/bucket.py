"""Segments as objects on S3, each written with one PUT under its digest; nothing but S3 need be shared.

What is read is copied to a folder of this machine's first and trusted by its digest alone, so a segment is
fetched once a machine. An object that does not match its name is left where it is and not looked into: the
plan that made it puts it there again, whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from assay.core.progress import Progress
from assay.score.segments.lease import Lease
from assay.storage.home import digest_of_content, digest_of_file, sweep, written_whole
from assay.storage.s3 import CONNECTIONS, Found, Objects
from assay.storage.stage import RunContext

_LOCK = "planner.json"
_ENDING = ".parquet"


class SegmentBucket:
    """The segments of one fingerprint, on S3."""

    def __init__(self, objects: Objects, copies: Path) -> None:
        self.place = objects.address
        self._objects = objects
        self._copies = copies
        self._damaged: set[Found] = set()

    def holds_any(self) -> bool:
        """Whether there is a segment, intact or not."""
        return any(one.name.endswith(_ENDING) for one in self._objects.list())

    def intact(self, progress: Progress | None) -> list[Path]:
        """A copy of every segment that matches its name; a line names each that does not, once."""
        found = [one for one in self._objects.list() if one.name.endswith(_ENDING)]
        known = set(self._damaged)
        paths = self._copied(found)
        if progress is not None:
            for one in sorted(self._damaged - known, key=lambda one: one.name):
                progress.say(
                    f"score store: segment {self._objects.address}/{one.name} is damaged and not looked "
                    "into; its turns are scored again. It may be deleted"
                )
        return paths

    def hold(self, digests: Iterable[str]) -> bool:
        """Whether all of these are there and match their names."""
        wanted = {f"{digest}{_ENDING}" for digest in digests}
        found = [one for one in self._objects.list() if one.name in wanted]
        return len(found) == len(wanted) == len(self._copied(found))

    def keep(self, data: bytes) -> str:
        """The digest of the data, under which it is a segment from now on. One PUT."""
        digest = digest_of_content(data)
        self._objects.put(f"{digest}{_ENDING}", data)
        return digest

    @contextmanager
    def planning(self, context: RunContext) -> Iterator[RunContext]:
        """Hold the one lock of this fingerprint: an object, renewed while this process lives."""
        with Lease(self._objects, _LOCK).held(context) as holding:
            yield holding

    def _copied(self, found: Iterable[Found]) -> list[Path]:
        """A verified copy of each, but of those that are damaged or gone, ordered by name."""
        if self._copies.exists():
            sweep(self._copies)
        wanted = sorted((one for one in found if one not in self._damaged), key=lambda one: one.name)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            copies = list(pool.map(self._copy, wanted))
        return [path for path in copies if path is not None]

    def _copy(self, one: Found) -> Path | None:
        path = self._copies / one.name
        if path.is_file() and digest_of_file(path) == path.stem:
            return path
        content = self._objects.read(one.name)
        if content is None:
            return None
        if digest_of_content(content.data) != path.stem:
            self._damaged.add(Found(one.name, content.etag, len(content.data)))
            return None
        with written_whole(path) as temporary:
            temporary.write_bytes(content.data)
        return path
