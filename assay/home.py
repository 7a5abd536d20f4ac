"""Where things live under ``ASSAY_HOME``, and how a file gets there: whole, or not at all."""

from __future__ import annotations

import glob
import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_CHUNK_BYTES = 1 << 20


def digest_of_bytes(*parts: bytes) -> str:
    """128-bit BLAKE2b of the parts, each preceded by its length, as 32 hex digits."""
    running = hashlib.blake2b(digest_size=16)
    for part in parts:
        running.update(b"%d:" % len(part))
        running.update(part)
    return running.hexdigest()


def digest_of_file(path: Path) -> str:
    """128-bit BLAKE2b of a file's bytes, as 32 hex digits."""
    running = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            running.update(chunk)
    return running.hexdigest()


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that serves every run: scores, plans, artifacts of stages, Prefect's results."""

    root: Path

    @property
    def artifacts(self) -> Path:
        """Results of stages, a folder a cache key."""
        return self.root / "artifacts"

    @property
    def scores(self) -> Path:
        """The score store: a folder a fingerprint."""
        return self.root / "scores"

    @property
    def plans(self) -> Path:
        """Written plans: a folder a fingerprint."""
        return self.root / "plans"

    @property
    def prefect(self) -> Path:
        """The embedded server's database, and Prefect's result storage."""
        return self.root / "prefect"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that a stage made: its path below ``Home.artifacts``, its digest and size in bytes."""

    path: str
    digest: str
    size: int

    def is_intact(self, home: Home) -> bool:
        """Whether the file is there with the bytes it was written with."""
        path = home.artifacts / self.path
        return path.is_file() and path.stat().st_size == self.size and digest_of_file(path) == self.digest

    @classmethod
    def of(cls, path: Path, home: Home) -> Artifact:
        """The artifact that ``path``, somewhere below ``home.artifacts``, now is."""
        return cls(str(path.relative_to(home.artifacts)), digest_of_file(path), path.stat().st_size)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed to ``path``.

    A reader sees the old file or the new one, never a part. On an error nothing is left behind; what a
    killed process of this machine left of the same file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = f".{path.name}.{socket.gethostname()}-"
    for leftover in path.parent.glob(f"{glob.escape(mine)}*.tmp"):
        pid = leftover.name[len(mine) :].partition(".")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f"{mine}{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
