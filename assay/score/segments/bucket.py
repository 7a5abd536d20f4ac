"""Segments as objects on S3. One PUT writes a segment under its digest. Machines share nothing but S3.

A segment is copied to a folder of this machine, and the copy must match the digest whenever its values are
read. So each machine fetches a segment once. An object that does not match its name stays in place and is not
read: the plan that made it writes it again, whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from assay.core.digests import digest_of_content
from assay.core.progress import Progress
from assay.score.segments.intact import is_intact
from assay.score.segments.lease import Lease
from assay.storage.home import sweep, written_whole
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
        """Whether there is any segment, intact or not."""
        return any(one.name.endswith(_ENDING) for one in self._objects.list())

    def present(self, progress: Progress | None) -> list[Path]:
        """A copy of every segment, but of those that did not match their names when they were fetched.

        ``progress`` reports each of the latter, once. A copy of an earlier run is not looked at.
        """
        known = set(self._damaged)
        paths = self._copied(self._segments(), lambda path: path.is_file())
        self._report(known, progress)
        return paths

    def damaged(self, paths: Iterable[Path], progress: Progress | None) -> set[Path]:
        """Those that do not match their names, and do not either once they are fetched anew."""
        known, names = set(self._damaged), {path.name: path for path in paths}
        if self._copies.exists():
            sweep(self._copies)
        cut = {name for name, path in names.items() if not is_intact(path)}
        intact = self._copied([one for one in self._segments() if one.name in cut], is_intact) if cut else []
        self._report(known, progress)
        return {names[name] for name in cut - {path.name for path in intact}}

    def hold(self, digests: Iterable[str]) -> bool:
        """Whether all these segments are there."""
        wanted = {f"{digest}{_ENDING}" for digest in digests}
        return wanted <= {one.name for one in self._segments() if one not in self._damaged}

    def _segments(self) -> list[Found]:
        return [one for one in self._objects.list() if one.name.endswith(_ENDING)]

    def _report(self, known: set[Found], progress: Progress | None) -> None:
        """Report the damaged segments that are not ``known`` yet."""
        if progress is None:
            return
        for one in sorted(self._damaged - known, key=lambda one: one.name):
            progress.say(
                f"score store: segment {self._objects.address}/{one.name} is damaged and is not read; "
                "its turns are scored again. You may delete it"
            )

    def keep(self, data: bytes) -> str:
        """Store the data as a segment, with one PUT. Returns its digest, which is its name."""
        digest = digest_of_content(data)
        self._objects.put(f"{digest}{_ENDING}", data)
        return digest

    @contextmanager
    def planning(self, context: RunContext) -> Iterator[RunContext]:
        """Hold the lock of this fingerprint: an object that this process renews while it lives."""
        with Lease(self._objects, _LOCK).held(context) as holding:
            yield holding

    def _copied(self, found: Iterable[Found], is_good: Callable[[Path], bool]) -> list[Path]:
        """A copy of each segment that is neither damaged nor gone, in the order of the names.

        Fetched where the copy that is there is not good.
        """
        wanted = sorted((one for one in found if one not in self._damaged), key=lambda one: one.name)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            copies = list(pool.map(lambda one: self._copy(one, is_good), wanted))
        return [path for path in copies if path is not None]

    def _copy(self, one: Found, is_good: Callable[[Path], bool]) -> Path | None:
        path = self._copies / one.name
        if is_good(path):
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
