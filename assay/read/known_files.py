"""The digests of input files that an earlier run read, so that an unchanged file is not read again for one.

A file is unchanged where its size, its times (of content and of inode), its inode and its device are as they
were. Nothing that a program usually does changes a file and none of these, but for writing through a memory
map. A file that was changed within a minute of being read is not remembered: another change could have the
same times, and the kernel may be late with those of a memory map.

There is a small file for every folder of inputs. Where it is damaged or missing, the inputs are read again.

For a remote file that a worker read, all that the worker found is kept too, because this machine has no copy
to look at again. Such a file is unchanged if its address, its version (an object's ETag) and its size are.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from assay.core.digests import digest_of_bytes, digest_of_file
from assay.storage.home import Home, written_whole
from assay.storage.sealed import Altered, sealed_json, unsealed

_FOLDER = "ingest"
_FILES = "files"
#: Times of a file can be coarse (FAT's: 2 s), clocks of file servers differ a little, and a write through a
#: memory map has its time when the kernel writes it back (after 30 s: vm.dirty_expire_centisecs).
_SETTLED_NS = 60 * 10**9


class Look(msgspec.Struct, frozen=True, array_like=True):
    """What the file system says of a file. Unlike ``Stamp``, with the time that no program can put back."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int

    @classmethod
    def at(cls, path: str) -> Look:
        """The present one; OSError where there is no file."""
        found = os.stat(path)
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


@dataclass(frozen=True, slots=True)
class DigestedFile:
    """What reading a whole file gave."""

    digest: str
    size: int
    """Bytes that were read."""
    cuts: tuple[tuple[int, int], ...]
    """The (offset, line from 1) where each shard begins."""
    shard_bytes: int | None
    """The least size of its shards; None: it is one."""


class _Known(msgspec.Struct, frozen=True):
    look: Look
    file: DigestedFile


class KnownFiles:
    """The files that were read for a digest, by this run or an earlier one."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._by_folder: dict[str, dict[str, _Known]] = {}
        self._learnt: dict[str, dict[str, _Known]] = {}

    def known(self, path: str, look: Look, *, shard_bytes: int | None) -> DigestedFile | None:
        """What an earlier run read of the file, which is unchanged; None where that is not known."""
        folder, name = _place(path)
        if folder not in self._by_folder:
            self._by_folder[folder] = self._read(folder)
        known = self._by_folder[folder].get(name)
        if known is None or known.look != look or known.file.shard_bytes != shard_bytes:
            return None
        return known.file

    def digest(self, path: str) -> str:
        """The file's digest: of an earlier run where the file is unchanged, else computed now."""
        folder, name = _place(path)
        if folder not in self._by_folder:
            self._by_folder[folder] = self._read(folder)
        known = self._by_folder[folder].get(name)
        if known is not None and known.look == Look.at(path):
            return known.file.digest
        return digest_of_file(Path(path))

    def learn(self, path: str, look: Look, read: DigestedFile) -> None:
        """Remember what was read of the file after it was looked at.

        Only of a file that had settled by then, and that has not changed since.
        """
        settled = max(look.modified_ns, look.changed_ns) < time.time_ns() - _SETTLED_NS
        if settled and read.size == look.size and Look.at(path) == look:
            folder, name = _place(path)
            self._learnt.setdefault(folder, {})[name] = _Known(look, read)

    def keep(self) -> None:
        """Write what was learnt. What is no longer there is forgotten."""
        for folder, learnt in self._learnt.items():
            before = {
                name: one
                for name, one in self._read(folder).items()
                if name not in learnt and os.path.exists(os.path.join(folder, name))
            }
            path = self._file(folder)
            files = msgspec.to_builtins({_FILES: before | learnt})
            with written_whole(path) as temporary:
                temporary.write_bytes(sealed_json(files, about=folder))
        self._learnt = {}

    def _file(self, folder: str) -> Path:
        return self._home.artifacts / _FOLDER / f"{digest_of_bytes(os.fsencode(folder))}.json"

    def _read(self, folder: str) -> dict[str, _Known]:
        try:
            content = unsealed(self._file(folder).read_bytes(), about=folder)
            return msgspec.convert(content[_FILES], dict[str, _Known])
        except (FileNotFoundError, Altered, KeyError, msgspec.ValidationError):
            return {}


def _place(path: str) -> tuple[str, str]:
    """The file's folder, without links, and its name there."""
    return os.path.split(os.path.realpath(path))


#: A run that is killed loses what it learnt in these last seconds.
_KEPT_EVERY_SECONDS = 60.0


class SeenObject(msgspec.Struct, frozen=True):
    """What a worker found out about a remote file."""

    container: str
    compression: str
    format: str
    file: DigestedFile
    no_chat: str | None = None
    """Why no row of the file can be read; None if rows can be."""


class _SeenAt(msgspec.Struct, frozen=True):
    version: str
    size: int
    asked: str
    """A digest of the options and the code with which a worker looked at it."""
    seen: SeenObject


class KnownObjects:
    """The remote files that workers read, in this run or an earlier one."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._by_folder: dict[str, dict[str, _SeenAt]] = {}
        self._learnt: dict[str, dict[str, _SeenAt]] = {}
        self._kept_at = time.monotonic()

    def seen(self, address: str, version: str, size: int, asked: str) -> SeenObject | None:
        """What a worker found out about the file. None if no worker has, if the file has changed, or if
        ``asked`` differs."""
        folder, _, name = address.rpartition("/")
        if folder not in self._by_folder:
            self._by_folder[folder] = self._read(folder)
        found = self._by_folder[folder].get(name)
        if found is None or (found.version, found.size, found.asked) != (version, size, asked):
            return None
        return found.seen

    def learn(self, address: str, version: str, size: int, asked: str, seen: SeenObject) -> None:
        """Remember what a worker found out about the file."""
        folder, _, name = address.rpartition("/")
        self._learnt.setdefault(folder, {})[name] = _SeenAt(version, size, asked, seen)

    def keep_now_and_then(self) -> None:
        """Write what was learnt, if the last time was a minute ago or more."""
        if time.monotonic() - self._kept_at >= _KEPT_EVERY_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Write what was learnt."""
        self._kept_at = time.monotonic()
        for folder, learnt in self._learnt.items():
            files = msgspec.to_builtins({_FILES: self._read(folder) | learnt})
            with written_whole(self._file(folder)) as temporary:
                temporary.write_bytes(sealed_json(files, about=folder))
        self._learnt = {}

    def _file(self, folder: str) -> Path:
        return self._home.artifacts / _FOLDER / f"{digest_of_bytes(folder.encode())}.json"

    def _read(self, folder: str) -> dict[str, _SeenAt]:
        try:
            content = unsealed(self._file(folder).read_bytes(), about=folder)
            return msgspec.convert(content[_FILES], dict[str, _SeenAt])
        except (FileNotFoundError, Altered, KeyError, msgspec.ValidationError):
            return {}
