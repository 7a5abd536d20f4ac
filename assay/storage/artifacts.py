"""Where the files of stages lie: in a folder of the home, or in a bucket that machines share.

Every stage reads and writes its files here. A file is whole or not there, and its content is held against its
digest when it is read.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import polars as pl

from assay.core.digests import digest_of_content
from assay.core.errors import StoreRefusal, UserMistake
from assay.storage.disk import ALTERED, damage_named, damaged
from assay.storage.home import Artifact, Home, is_intact, mark_used, sweep, written_whole
from assay.storage.private import make_private, opener
from assay.storage.scratch import HANDOVER, own_folder, sweep_folders


class Artifacts(Protocol):
    """The files of stages. A ``path`` is below their place, with ``/`` between folders."""

    def place_of(self, path: str) -> str:
        """What messages call the file."""

    def read(self, artifact: Artifact) -> bytes:
        """The content of a file. AssayError where it is gone or altered."""

    def to_scan(self, artifact: Artifact) -> Path | io.BytesIO:
        """What polars scans for a few rows. AssayError where a bucket has lost or altered the file."""

    def keep_table(
        self,
        frame: pl.DataFrame,
        path: str,
        *,
        compression_level: int | None = None,
        statistics: bool = True,
    ) -> Artifact:
        """Write the frame as a Parquet file, the same bytes wherever it lies. Returns the artifact."""

    def keep(self, data: bytes, path: str) -> Artifact:
        """Write a file of these bytes. Returns the artifact."""

    def first_altered(self, artifacts: Sequence[Artifact]) -> Artifact | None:
        """The first of these files that is not as it was written; None where all are.

        A bucket is asked for names and sizes alone. Whoever reads a file from there checks its content.
        """

    def read_sealed(self, path: str) -> bytes | None:
        """The content of a small file that shows by itself whether it is intact; None where there is none."""

    def keep_sealed(self, data: bytes, path: str) -> None:
        """Write such a file."""

    def hold(self, paths: Iterable[str]) -> bool:
        """Whether there are such files at all these paths."""

    def begin(self, folder: str) -> None:
        """Make a folder ready for files of a stage, and remove what killed writers left in it."""

    def sweep_handover(self) -> None:
        """Remove what killed runs of this machine left of what workers had handed to them."""

    def handover(self) -> AbstractContextManager[str]:
        """Yield a new folder for what workers hand to the run, which is removed when this context ends."""

    def handing_over(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Yield a file to write. It has its name, and is whole, when this context ends without an error."""

    def handed_over(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Yield such a file to read; it is removed when this context ends. FileNotFoundError without one."""


def artifacts_of(home: Home) -> Artifacts:
    """The files of stages, in the folder or bucket that this home uses."""
    if home.artifact_store is None:
        return FolderArtifacts(home)
    from assay.storage.bucket_artifacts import BucketArtifacts

    return BucketArtifacts(home.artifact_store)


def check_artifacts(home: Home) -> None:
    """Check a bucket for artifacts: UserMistake where S3 refuses, StoreFault where it does not answer."""
    if home.artifact_store is None:
        return
    from assay.storage.s3 import Objects

    try:
        Objects(home.artifact_store).check()
    except StoreRefusal as error:
        raise UserMistake(f"ASSAY_ARTIFACTS: {error}") from error


def read_artifact(artifact: Artifact, home: Home, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of a stage's Parquet file. AssayError where the file is gone or altered."""
    files = artifacts_of(home)
    with damage_named(files.place_of(artifact.path)):
        return pl.read_parquet(files.read(artifact), columns=list(columns))


def are_intact(artifacts: Iterable[Artifact], home: Home) -> bool:
    """Whether all these files are there, as they were written: see ``Artifacts.first_altered``."""
    return artifacts_of(home).first_altered(list(artifacts)) is None


class FolderArtifacts:
    """The files of stages below ``Home.artifacts``."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def _at(self, path: str) -> Path:
        return self._home.artifacts / path

    def _use(self, path: str) -> None:
        """Let it count as used now: see ``old_artifacts``. Some disks note no times of access."""
        with suppress(OSError):
            mark_used(self._at(path))

    def place_of(self, path: str) -> str:
        """The file's path."""
        return str(self._at(path))

    def read(self, artifact: Artifact) -> bytes:
        """The content of a file. AssayError where it is gone or altered."""
        path = self._at(artifact.path)
        with damage_named(path):
            data = path.read_bytes()
        if digest_of_content(data) != artifact.digest:
            raise damaged(path, ALTERED)
        self._use(artifact.path)
        return data

    def to_scan(self, artifact: Artifact) -> Path:
        """The file's path. Its content is not looked at."""
        return self._at(artifact.path)

    def keep_table(
        self,
        frame: pl.DataFrame,
        path: str,
        *,
        compression_level: int | None = None,
        statistics: bool = True,
    ) -> Artifact:
        """Write the frame as a Parquet file. Returns the artifact."""
        with written_whole(self._at(path)) as temporary:
            frame.write_parquet(temporary, compression_level=compression_level, statistics=statistics)
        return Artifact.of(self._at(path), self._home)

    def keep(self, data: bytes, path: str) -> Artifact:
        """Write a file of these bytes. Returns the artifact."""
        self.keep_sealed(data, path)
        return Artifact(path, digest_of_content(data), len(data))

    def first_altered(self, artifacts: Sequence[Artifact]) -> Artifact | None:
        """The first of these files whose size or digest is another; None where there is none."""
        for one in artifacts:
            if not is_intact(self._at(one.path), digest=one.digest, size=one.size):
                return one
            self._use(one.path)
        return None

    def read_sealed(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            data = self._at(path).read_bytes()
        except FileNotFoundError:
            return None
        self._use(path)
        return data

    def keep_sealed(self, data: bytes, path: str) -> None:
        """Write a file."""
        with written_whole(self._at(path)) as temporary:
            temporary.write_bytes(data)

    def hold(self, paths: Iterable[str]) -> bool:
        """Whether there are files at all these paths."""
        for path in paths:
            if not self._at(path).is_file():
                return False
            self._use(path)
        return True

    def begin(self, folder: str) -> None:
        """Make the folder, and remove what killed writers of this machine left in it."""
        make_private(self._at(folder))
        sweep(self._at(folder))

    def sweep_handover(self) -> None:
        """Remove the folders of this machine's runs that have ended."""
        sweep_folders(self._at(HANDOVER))

    @contextmanager
    def handover(self) -> Iterator[str]:
        """Yield a new folder."""
        place = self._at(HANDOVER)
        make_private(place)
        with own_folder(place) as folder:
            yield f"{HANDOVER}/{folder.name}"

    @contextmanager
    def handing_over(self, path: str) -> Iterator[BinaryIO]:
        """Yield a temporary file, which is renamed when this context ends."""
        temporary = self._at(f"{path}.{secrets.token_hex(8)}")
        with open(temporary, "xb", opener=opener) as file:
            yield file
        os.replace(temporary, self._at(path))

    @contextmanager
    def handed_over(self, path: str) -> Iterator[BinaryIO]:
        """Yield the file, and remove it at the end."""
        with self._at(path).open("rb") as file:
            yield file
        self._at(path).unlink()
