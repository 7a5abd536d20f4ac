"""Where things live under ``ASSAY_HOME``, and how a file gets there: whole, or not at all."""

from __future__ import annotations

import glob
import hashlib
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from assay.storage.private import FILE, close_to_others, make_private
from assay.storage.private import opener as private_opener

_CHUNK_BYTES = 1 << 20


def digest_of_bytes(*parts: bytes) -> str:
    """128-bit BLAKE2b of the parts, each preceded by its length, as 32 hex digits."""
    running = hashlib.blake2b(digest_size=16)
    for part in parts:
        running.update(b"%d:" % len(part))
        running.update(part)
    return running.hexdigest()


def digest_of_content(data: bytes) -> str:
    """What ``digest_of_file`` says of a file of these bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_of_file(path: Path) -> str:
    """128-bit BLAKE2b of a file's bytes, as 32 hex digits."""
    running = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            running.update(chunk)
    return running.hexdigest()


def is_intact(path: Path, *, digest: str, size: int) -> bool:
    """Whether the file is there with the bytes that it was written with."""
    return path.is_file() and path.stat().st_size == size and digest_of_file(path) == digest


def contains(folders: Sequence[str], real_path: str) -> bool:
    """Whether the path, of which no part is a link, lies in one of the folders or is one."""
    return any(os.path.commonpath([folder, real_path]) == folder for folder in folders)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that serves every run: scores, plans, artifacts of stages, Prefect's results."""

    root: Path
    score_store: str | None = None
    """Where segments are kept that other machines write too, ``s3://BUCKET/PREFIX``; None: in ``scores``."""

    @property
    def artifacts(self) -> Path:
        """Results of stages, a folder a cache key."""
        return self.root / "artifacts"

    @property
    def scores(self) -> Path:
        """The score store: a folder a fingerprint."""
        return self.root / "scores"

    @property
    def copies(self) -> Path:
        """Copies of segments that are kept on S3: a folder a fingerprint."""
        return self.root / "copies"

    @property
    def plans(self) -> Path:
        """Written plans: a folder a fingerprint."""
        return self.root / "plans"

    @property
    def prefect(self) -> Path:
        """The embedded server's database, and Prefect's result storage."""
        return self.root / "prefect"

    @property
    def model_digests(self) -> Path:
        """Digests of models' weights, by place, size and time."""
        return self.root / "model-digests.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders in here that are Assay's own, whether or not they are there."""
        return (self.artifacts, self.scores, self.copies, self.plans, self.prefect)

    def close_to_others(self) -> None:
        """Take from others the rights that an earlier version left them to what is Assay's own in here.

        The folder itself keeps its rights: its user may have made it. Below its folders nothing is looked at,
        for nobody else gets there.
        """
        for own in (*self.folders, self.model_digests):
            close_to_others(own)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that a stage made: its path below ``Home.artifacts``, its digest and size in bytes."""

    path: str
    digest: str
    size: int

    def is_intact(self, home: Home) -> bool:
        """Whether the file is there with the bytes it was written with."""
        return is_intact(home.artifacts / self.path, digest=self.digest, size=self.size)

    @classmethod
    def of(cls, path: Path, home: Home) -> Artifact:
        """The artifact that ``path``, somewhere below ``home.artifacts``, now is."""
        return cls(str(path.relative_to(home.artifacts)), digest_of_file(path), path.stat().st_size)


def sweep(folder: Path) -> None:
    """Remove what ``written_whole`` left in the folder when processes of this machine were killed.

    Once before a folder is written to, and not with every file: it looks at every name that is there.
    """
    mine = f".{socket.gethostname()}-"
    for leftover in folder.glob(f".*{glob.escape(mine)}*.tmp"):
        pid = leftover.name.rpartition(mine)[2].partition(".")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            leftover.unlink(missing_ok=True)


@contextmanager
def written_whole(path: Path, *, mode: int = FILE) -> Iterator[Path]:
    """Yield a temporary file beside ``path``; on success it is synced and renamed to ``path``.

    A reader sees the old file or the new one, never a part. On an error nothing is left behind; what a
    killed process leaves, ``sweep`` removes. Folders that are missing are made for this user alone, and so
    is the file, unless its ``mode`` says otherwise.
    """
    make_private(path.parent)
    mine = f".{path.name}.{socket.gethostname()}-{os.getpid()}.{uuid.uuid4().hex}.tmp"
    temporary = path.with_name(mine)
    try:
        open(temporary, "xb", opener=private_opener).close()
        yield temporary
        if mode != FILE:
            temporary.chmod(mode)
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
