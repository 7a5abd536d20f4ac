"""Where things lie under ``ASSAY_HOME``, and how a file gets there: whole, or not at all."""

from __future__ import annotations

import glob
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from assay.core.digests import digest_of_file
from assay.storage.private import FILE, close_to_others, make_private
from assay.storage.private import opener as private_opener


def is_intact(path: Path, *, digest: str, size: int) -> bool:
    """Whether the file is there and unaltered."""
    return path.is_file() and path.stat().st_size == size and digest_of_file(path) == digest


def contains(folders: Sequence[str], real_path: str) -> bool:
    """Whether the path lies in one of the folders, or is one. No part of the path may be a link."""
    return any(os.path.commonpath([folder, real_path]) == folder for folder in folders)


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark_used(path: Path) -> None:
    """Set the file's atime (last use) to now; keep mtime, which ``Stamp`` compares."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def default_root() -> Path:
    """The home folder of a user who names none."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("assay", appauthor=False))


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that all runs share: scores, plans, what stages made, Prefect's history."""

    root: Path
    score_store: str | None = None
    """``s3://BUCKET/PREFIX`` for segments that several machines share; None: they lie in ``scores``."""
    artifact_store: str | None = None
    """``s3://BUCKET/PREFIX`` for the files of stages; None: they lie in ``artifacts``."""
    host: str | None = None
    """The machine of the run that sent this home to a worker; None: it was sent nowhere."""

    @property
    def is_in_buckets(self) -> bool:
        """Whether a worker needs no folder of the run: scores and files of stages lie in buckets."""
        return self.score_store is not None and self.artifact_store is not None

    def sent(self) -> Home:
        """The home as a job takes it to a worker."""
        return replace(self, host=socket.gethostname())

    def here(self) -> Home:
        """The home for the process that this one was sent to.

        A worker that needs no folder of the run keeps its copies in a folder of its own machine: in its own
        ``ASSAY_HOME``. Without that variable it is the run's folder on the run's machine, else the default.
        """
        if self.host is None or not self.is_in_buckets:
            return self
        if own := os.environ.get("ASSAY_HOME"):
            return replace(self, root=Path(os.path.abspath(Path(own).expanduser())))
        return self if self.host == socket.gethostname() else replace(self, root=default_root())

    @property
    def artifacts(self) -> Path:
        """Results of stages, one folder per cache key: see ``assay.storage.artifacts``."""
        return self.root / "artifacts"

    @property
    def manifests(self) -> Path:
        """The folder of finished stages' manifests, a file each: see ``assay.storage.kept_manifests``."""
        return self.root / "manifests"

    @property
    def scores(self) -> Path:
        """The score store: one folder per fingerprint."""
        return self.root / "scores"

    @property
    def copies(self) -> Path:
        """Copies of what was read from S3: segments, one folder per fingerprint, and inputs."""
        return self.root / "copies"

    @property
    def plans(self) -> Path:
        """Written plans: one folder per fingerprint."""
        return self.root / "plans"

    @property
    def prefect(self) -> Path:
        """The embedded server's database, its log, and what Prefect stores of failures."""
        return self.root / "prefect"

    @property
    def model_digests(self) -> Path:
        """Digests of models' weights, by path, size and time."""
        return self.root / "model-digests.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Assay's own folders in here, whether or not they exist."""
        return (self.artifacts, self.manifests, self.scores, self.copies, self.plans, self.prefect)

    def close_to_others(self) -> None:
        """Take away the rights that an earlier version gave other users on Assay's own folders in here.

        The home folder itself keeps its rights: its user may have made it. What lies inside Assay's folders
        is left alone, because nobody else can get there.
        """
        for own in (*self.folders, self.model_digests):
            close_to_others(own)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that a stage made: path below the artifacts' folder or address, digest, size in bytes."""

    path: str
    digest: str
    size: int

    @classmethod
    def of(cls, path: Path, home: Home) -> Artifact:
        """The artifact for the file at ``path``, which lies below ``home.artifacts``."""
        return cls(str(path.relative_to(home.artifacts)), digest_of_file(path), path.stat().st_size)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes of this machine left in the folder.

    ``written_whole`` does so before it first writes to a folder in this process. Call it where a stage begins
    to write, not once per file: it lists the whole folder.
    """
    mine = f".{socket.gethostname()}-"
    for leftover in folder.glob(f".*{glob.escape(mine)}*.tmp"):
        pid = leftover.name.rpartition(mine)[2].partition(".")[0]
        try:
            from assay.storage.processes import has_ended
        except ImportError:
            # A bare machine that has a model and nothing else leaves them where they are.
            return
        if pid.isdigit() and has_ended(int(pid)):
            leftover.unlink(missing_ok=True)


@cache
def _swept(folder: Path) -> None:
    """Sweep the folder, once in this process."""
    sweep(folder)


@contextmanager
def written_whole(path: Path, *, mode: int = FILE) -> Iterator[Path]:
    """Yield a temporary file beside ``path``; on success flush it to the disk and rename it to ``path``.

    A reader sees the old file or the new one, never a part. An error leaves nothing behind. A killed
    process leaves its temporary file, which ``sweep`` removes. The file, and each folder that is missing,
    is for this user alone, unless ``mode`` gives the file other rights.
    """
    make_private(path.parent)
    _swept(path.parent)
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
