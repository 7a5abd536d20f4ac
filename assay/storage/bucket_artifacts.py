"""Files of stages as objects on S3, for machines that share nothing else. None is kept on a disk.

An object is named by its path and its digest, ``convert/…/0000.records.DIGEST.parquet``. So one listing of a
folder shows which of its files are there, two runs never replace each other's files, and a writer that comes
second changes nothing. One PUT writes an object: it is whole or not there.

S3 reports when an object was last written, not when it was last read. So when a run uses an object that was
written days ago, it has S3 copy the object onto itself, which counts as writing. An object that was not
written for a long time was therefore not used either, and ``remove_unused`` may remove it.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import BinaryIO

import polars as pl

from assay.core.digests import digest_of_content
from assay.core.errors import StoreFault, StoreRefusal
from assay.storage.disk import ALTERED, damaged
from assay.storage.home import Artifact
from assay.storage.s3 import CONNECTIONS, Found, Objects
from assay.storage.scratch import HANDOVER, is_left

#: A process holds so many bytes of what it read or wrote last: several columns of a file are often asked for
#: in turn, and the records of one file make several shards.
_RECENT_BYTES = 64 << 20

_DAY_SECONDS = 86_400.0
#: A run that uses an object older than this has S3 write it again. That costs a request an object, so it is
#: not done daily.
_WRITTEN_AGAIN_DAYS = 3

#: The names that files of stages have. The bucket may also hold files that are not Assay's.
_OURS = re.compile(
    rf"""
    (convert|score|filter|gather)/[0-9a-f]{{32}}/([^/]+\.[0-9a-f]{{32}}\.[a-z]+|manifest\.json)
    | languages/[0-9a-f]{{32}}\.json
    | {HANDOVER}/run-[^/]+/[^/]+
    """,
    re.VERBOSE,
)


class BucketArtifacts:
    """The files of stages below ``s3://BUCKET/PREFIX``."""

    def __init__(self, address: str) -> None:
        self._objects = Objects(address)

    def place_of(self, path: str) -> str:
        """The file's address, but for the digest in its name."""
        return f"{self._objects.address}/{path}"

    def read(self, artifact: Artifact) -> bytes:
        """The content of a file. AssayError where it is gone or altered.

        An altered one is removed, so that the next run makes it anew: a listing does not show what it holds.
        """
        name = _name(artifact)
        key = self._address(name)
        if (recent := _RECENT.get(key)) is not None:
            return recent
        # Read it twice before it counts as altered: removing it costs somebody its making.
        for _ in range(2):
            content = self._objects.read(name)
            if content is None:
                raise damaged(key, "there is no such object")
            if digest_of_content(content.data) == artifact.digest:
                self._use(name, content.written)
                _RECENT.put(key, content.data)
                return content.data
        self._objects.remove(name)
        raise damaged(key, ALTERED)

    def _address(self, name: str) -> str:
        return f"{self._objects.address}/{name}"

    def to_scan(self, artifact: Artifact) -> io.BytesIO:
        """The content of a file. AssayError where it is gone or altered."""
        return io.BytesIO(self.read(artifact))

    def keep_table(
        self,
        frame: pl.DataFrame,
        path: str,
        *,
        compression_level: int | None = None,
        statistics: bool = True,
    ) -> Artifact:
        """Write the frame as a Parquet file. Returns the artifact."""
        written = io.BytesIO()
        frame.write_parquet(written, compression_level=compression_level, statistics=statistics)
        return self.keep(written.getvalue(), path)

    def keep(self, data: bytes, path: str) -> Artifact:
        """Write a file of these bytes, with one PUT. Returns the artifact."""
        artifact = Artifact(path, digest_of_content(data), len(data))
        name = _name(artifact)
        self._objects.put(name, data)
        _RECENT.put(self._address(name), data)
        return artifact

    def first_altered(self, artifacts: Sequence[Artifact]) -> Artifact | None:
        """The first of these files that is not there, or has another size; None where there is none.

        Each folder is listed once.
        """
        folders = sorted({str(PurePosixPath(one.path).parent) for one in artifacts})
        there: dict[str, Found] = {}
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for found in pool.map(self._found_in, folders):
                there |= found
            altered = next((one for one in artifacts if not _is_of_its_size(one, there)), None)
            if altered is None:
                used = [there[_name(one)] for one in artifacts]
                list(pool.map(lambda one: self._use(one.name, one.written), used))
        return altered

    def _found_in(self, folder: str) -> dict[str, Found]:
        """Every object in the folder, by name."""
        return {one.name: one for one in self._objects.list_all(f"{folder}/")}

    def _use(self, name: str, written: float) -> None:
        """Mark an object as used, by writing it again if it was last ``written`` more than three days ago."""
        if time.time() - written < _WRITTEN_AGAIN_DAYS * _DAY_SECONDS:
            return
        # If this fails, the object may be removed too early; a later run then makes it again.
        with suppress(StoreRefusal, StoreFault):
            self._objects.write_again(name)

    def remove_unused(self, days: int, *, but: str | None = None) -> Iterator[int]:
        """Remove the files that nobody has used for so many days, and yield the size of each.

        Objects that are not files of stages stay, and so does everything below the address ``but``.
        """
        # An object may have been used up to this many days after it was last written.
        before = time.time() - (days + _WRITTEN_AGAIN_DAYS) * _DAY_SECONDS
        for one in self._objects.list_all(""):
            if one.written >= before or not _OURS.fullmatch(one.name):
                continue
            if but is not None and self._address(one.name).startswith(f"{but.rstrip('/')}/"):
                continue
            # Ask again: another run may have used it since it was listed.
            written = self._objects.written(one.name)
            if written is None or written >= before:
                continue
            self._objects.remove(one.name)
            yield one.size

    def read_sealed(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        content = self._objects.read(path)
        if content is None:
            return None
        self._use(path, content.written)
        return content.data

    def keep_sealed(self, data: bytes, path: str) -> None:
        """Write a file, with one PUT."""
        self._objects.put(path, data)

    def hold(self, paths: Iterable[str]) -> bool:
        """Whether there are files at all these paths."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return all(pool.map(self._holds, paths))

    def _holds(self, path: str) -> bool:
        written = self._objects.written(path)
        if written is None:
            return False
        self._use(path, written)
        return True

    def begin(self, folder: str) -> None:
        """Nothing: a bucket has no folders, and a killed writer leaves no part of an object."""

    @contextmanager
    def handover(self) -> Iterator[str]:
        """Yield a new folder. What is left in it at the end, as by a job that was done twice, is removed."""
        folder = f"{HANDOVER}/{_mine()}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            yield folder
        except BaseException:
            # What ended the run is worth more to know. A later run sweeps.
            with suppress(StoreFault):
                self._remove_below(f"{folder}/")
            raise
        self._remove_below(f"{folder}/")

    def sweep_handover(self) -> None:
        """Remove what killed runs of this machine left of what workers handed to them."""
        folders = {one.name.split("/")[1] for one in self._objects.list_all(f"{HANDOVER}/{_mine()}")}
        for folder in folders:
            if is_left(folder, _mine()):
                self._remove_below(f"{HANDOVER}/{folder}/")

    def _remove_below(self, beginning: str) -> None:
        for one in list(self._objects.list_all(beginning)):
            self._objects.remove(one.name)

    @contextmanager
    def handing_over(self, path: str) -> Iterator[BinaryIO]:
        """Yield a file in memory, which one PUT writes when this context ends."""
        file = io.BytesIO()
        yield file
        self._objects.put(path, file.getvalue())

    @contextmanager
    def handed_over(self, path: str) -> Iterator[BinaryIO]:
        """Yield the file, and remove it at the end."""
        content = self._objects.read(path)
        if content is None:
            raise FileNotFoundError(path)
        yield io.BytesIO(content.data)
        self._objects.remove(path)


def _is_of_its_size(artifact: Artifact, there: Mapping[str, Found]) -> bool:
    found = there.get(_name(artifact))
    return found is not None and found.size == artifact.size


def _mine() -> str:
    """How the names of this machine's folders begin."""
    return f"run-{socket.gethostname()}-"


def _name(artifact: Artifact) -> str:
    """The name of the artifact's object.

    >>> _name(Artifact("convert/key/0000.records.parquet", "00ff", 1))
    'convert/key/0000.records.00ff.parquet'
    """
    path = PurePosixPath(artifact.path)
    return str(path.with_name(f"{path.stem}.{artifact.digest}{path.suffix}"))


class _Recent:
    """What was read or written last, by its address: so many bytes at most."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """The content, if it is held."""
        with self._lock:
            data = self._held.get(key)
            if data is not None:
                self._held.move_to_end(key)
            return data

    def put(self, key: str, data: bytes) -> None:
        """Hold the content, and let go of what was used the longest ago."""
        with self._lock:
            self._size += len(data) - len(self._held.pop(key, b""))
            self._held[key] = data
            while self._size > self._most_bytes:
                _, gone = self._held.popitem(last=False)
                self._size -= len(gone)


_RECENT = _Recent(_RECENT_BYTES)
