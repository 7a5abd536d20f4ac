"""Inputs on S3 and on the Hub: list them, copy them whole to this machine, then read the copies.

A copy is named by the digest of its content. A link to it is named by the file's address and version. So a
file is fetched once, and fetched again when somebody replaces it. A file of the Hub has the commit in its
address, which manifests and outputs name.
"""

from __future__ import annotations

import fcntl
import fnmatch
import glob
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from assay.core.digests import digest_of_bytes, digest_of_file
from assay.core.errors import InputFault, StoreRefusal, UserMistake
from assay.core.text import counted
from assay.read.folders import files_of_rows
from assay.read.sources import KNOWN_ENDINGS
from assay.storage import hub, s3
from assay.storage.addresses import is_remote
from assay.storage.disk import full_disk_named
from assay.storage.home import Home, is_intact, mark_used
from assay.storage.manifests import InputFile
from assay.storage.private import FILE, make_private, opener
from assay.storage.s3 import CONNECTIONS
from assay.storage.stage import RunContext

#: A copy that no run has used for this long is removed.
KEPT_SECONDS = 7 * 24 * 3600.0

#: The most bytes of copies in a worker's own home. Files in use stay, even if they have more.
WORKERS_BYTES = 32 << 30

#: How often a copy is made if another worker removes it before it is read.
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to read that is not on this machine."""

    address: str
    """For a file of the Hub, with its commit."""
    name: str
    """Below its bucket or its data set."""
    size: int
    version: str
    """The object's ETag, or a digest of the content: it changes with the content."""


def _ending(address: str) -> str:
    """The known ending of the address, which shows format and compression; empty where it has none."""
    known = (ending for ending in KNOWN_ENDINGS if address.lower().endswith(ending))
    return max(known, key=len, default="")


def local_path(file: InputFile, home: Home) -> str:
    """The path of the file's bytes on this machine.

    For a file from elsewhere, that is its copy. A copy that was removed meanwhile is made again. Where the
    file has changed or is gone, nothing lies at the path.
    """
    if not is_remote(file.path):
        return file.path
    with suppress(UserMistake):
        fetch_copy(file, home)
    return place_of_copy(file.path, file.digest, home)


def place_of_copy(address: str, digest: str, home: Home) -> str:
    """The path of the copy of a file from elsewhere, whether or not there is one."""
    return str(_copy(home, digest, _ending(address)))


def reads_elsewhere(context: RunContext) -> bool:
    """Whether workers read the files from elsewhere, so that the run's machine has no copies of them."""
    return context.workers.are_elsewhere and context.home.is_in_buckets


@contextmanager
def in_use(file: InputFile, home: Home) -> Iterator[str]:
    """Yield what ``local_path`` returns. A copy stays until this context ends."""
    if not is_remote(file.path):
        yield file.path
        return

    def copy() -> str | None:
        path = local_path(file, home)
        return path if os.path.exists(path) else None

    with _held(copy):
        yield place_of_copy(file.path, file.digest, home)


@contextmanager
def copied_and_held(file: RemoteFile, home: Home, check: Callable[[], None]) -> Iterator[str]:
    """Yield the path of a copy, which stays there while this context lasts. Raises what ``copied`` raises."""
    with _held(lambda: copied(file, home, check=check)) as path:
        if path is None:
            raise InputFault(
                f"{file.address}: other workers remove each copy before it is read; "
                "run again, or start fewer workers on that machine"
            )
        yield path


@contextmanager
def _held(copy: Callable[[], str | None]) -> Iterator[str | None]:
    """Yield the path that ``copy`` gives, which is not removed to make room while this context lasts.

    None where it gives None, and where each of several copies was removed before it could be held.
    """
    for _ in range(_ATTEMPTS):
        path = copy()
        if path is None:
            break
        if (file := _opened_to_hold(path)) is not None:
            with file:
                yield path
            return
    yield None


def _opened_to_hold(path: str) -> BinaryIO | None:
    """The copy, which stays as long as this file is open; None where it has been removed already."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
        except FileNotFoundError:
            return None
        # Go on without a lock: some file systems have none.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file.fileno()).st_nlink == 0:
            return None
        stack.pop_all()
        return file


def _make_room(folder: Path, size: int) -> None:
    """Remove copies that nobody holds, the one used the longest ago first, until the new one fits."""
    copies = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                copies.append((found.st_atime_ns, found.st_size, path))
    excess = sum(one for _, one, _ in copies) + size - WORKERS_BYTES
    for _, one, path in sorted(copies):
        if excess <= 0:
            return
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            excess -= one


def fetch_copy(file: InputFile, home: Home) -> None:
    """Copy a file from elsewhere, unless its copy is here. UserMistake where it cannot be listed.

    Where the file has changed or is gone, there is no copy of it afterwards.
    """
    if not _copy(home, file.digest, _ending(file.path)).exists():
        for found in remote_files(file.path):
            if found.address == file.path:
                copied(found, home)


def remote_files(given: str, say: Callable[[str], object] = lambda line: None) -> list[RemoteFile]:
    """The files that an address stands for, sorted: one, those below it, or those that a glob matches.

    ``say`` hears a line for each that is left out. UserMistake where there are none, or where S3 or the Hub
    refuses to list them.
    """
    try:
        if given.startswith(hub.SCHEME):
            return _of_the_hub(given, say)
        return _of_s3(given, say)
    except StoreRefusal as error:
        raise UserMistake(str(error)) from error


def _of_s3(given: str, say: Callable[[str], object]) -> list[RemoteFile]:
    bucket, _, key = given.removeprefix(s3.SCHEME).partition("/")
    address = f"{s3.SCHEME}{bucket}"
    if not s3.is_address(address):
        raise UserMistake(f"{given}: is not of the form s3://BUCKET/NAME.")
    literal = key[: next((place for place, sign in enumerate(key) if sign in "*?["), len(key))]
    objects = s3.Objects(address)

    def content(name: str) -> bytes:
        found = objects.read(name)
        return b"" if found is None else found.data

    files = [
        RemoteFile(f"{address}/{one.name}", one.name, one.size, one.etag)
        for one in objects.list_all(literal)
        if not one.name.endswith("/")
    ]
    return _selected(given, key, files, content, say)


def _of_the_hub(given: str, say: Callable[[str], object]) -> list[RemoteFile]:
    wanted = hub.DataSet(given)
    commit = wanted.commit()
    files = [
        RemoteFile(f"{commit.address}/{one.name}", one.name, one.size, one.check) for one in commit.files
    ]

    def content(name: str) -> bytes:
        with TemporaryDirectory() as folder:
            (file,) = (one for one in files if one.name == name)
            return _from_the_hub(file, Path(folder)).read_bytes()

    return _selected(given, wanted.path, files, content, say)


def _selected(
    given: str,
    key: str,
    files: Sequence[RemoteFile],
    content: Callable[[str], bytes],
    say: Callable[[str], object],
) -> list[RemoteFile]:
    """Those of the files that ``key`` stands for: a name, a glob, or a folder. Sorted by name."""
    if named := [one for one in files if one.name == key]:
        return named
    folder = f"{key.rstrip('/')}/" if key else ""
    if glob.has_magic(key):
        pattern = key.split("/")
        chosen_files = [one for one in files if _matches(pattern, one.name.split("/"))]
    else:
        below = [one for one in files if one.name.startswith(folder)]
        chosen_files = [
            one
            for one in below
            if one.name.lower().endswith(KNOWN_ENDINGS)
            and not any(part.startswith(".") for part in one.name.removeprefix(folder).split("/"))
        ]
        if below and not chosen_files:
            raise UserMistake(f"{given}: holds no file that ends in {', '.join(KNOWN_ENDINGS)}.")
    by_name = {one.name: one for one in sorted(chosen_files, key=lambda one: one.name)}
    selection = files_of_rows(by_name, content)
    for line in selection.left_out:
        say(f"{given}: {line}")
    if not selection.names:
        what = "object" if s3.is_remote(given) else "file"
        raise UserMistake(f"{given}: there is no such {what}, and none that matches.")
    return [by_name[name] for name in selection.names]


def _matches(pattern: Sequence[str], name: Sequence[str]) -> bool:
    """As ``glob`` matches: ``*`` within a folder, ``**`` over any number of folders, no hidden names."""
    if not pattern or not name:
        return not pattern and not name
    if pattern[0] == "**":
        if _matches(pattern[1:], name):
            return True
        return not name[0].startswith(".") and (
            _matches(pattern, name[1:]) or (len(pattern) == len(name) == 1)
        )
    hidden = name[0].startswith(".") and not pattern[0].startswith(".")
    return not hidden and fnmatch.fnmatchcase(name[0], pattern[0]) and _matches(pattern[1:], name[1:])


def all_copied(files: Sequence[RemoteFile], home: Home) -> list[str]:
    """The paths of the files' copies, in the order of the files. Several are fetched at a time.

    Where one fails, it stops the others and raises what ``copied`` raises.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            return list(pool.map(lambda file: copied(file, home, stop), files))
        except BaseException:
            stop.set()
            raise


def copied(
    file: RemoteFile,
    home: Home,
    stop: threading.Event | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> str:
    """The path of a whole copy of the file. The copy is made now if there is none.

    InputFault where the file has changed or is gone since it was listed, and once ``stop`` is set. What
    ``check`` raises ends the download. A worker that keeps copies for itself makes room for it.
    """
    folder = _folder(home)
    link = folder / digest_of_bytes(file.address.encode(), file.version.encode())
    with suppress(OSError):
        copy = folder / os.readlink(link)
        if _is_intact(copy, file.size):
            mark_used(copy)
            return str(copy)
    make_private(folder)
    if home.host is not None and home.is_in_buckets:
        _make_room(folder, file.size)

    def go_on() -> None:
        check()
        if stop is not None and stop.is_set():
            raise InputFault(f"{file.address}: the download was stopped.")

    fetch = _from_the_hub if file.address.startswith(hub.SCHEME) else _from_s3
    with full_disk_named(folder), TemporaryDirectory(dir=folder, prefix=".", suffix=".tmp") as place:
        fetched = fetch(file, Path(place), go_on)
        fetched.chmod(FILE)
        if fetched.stat().st_size != file.size:
            raise InputFault(f"{file.address}: was changed or removed since it was listed. Run again.")
        copy = _copy(home, digest_of_file(fetched), _ending(file.address))
        # Another run may be reading a copy with the same content: do not replace that file.
        if not _is_intact(copy, file.size):
            fetched.replace(copy)
        pointing = Path(place) / "link"
        pointing.symlink_to(copy.name)
        pointing.replace(link)
    return str(copy)


def _from_s3(file: RemoteFile, place: Path, go_on: Callable[[], None]) -> Path:
    """The object's content in a new file below ``place``; less of it where the object is another by now."""
    bucket, _, key = file.address.removeprefix(s3.SCHEME).partition("/")
    path = place / "object"
    with open(path, "xb", opener=opener) as out:
        for chunk in s3.Objects(f"{s3.SCHEME}{bucket}").chunks(key, etag=file.version):
            out.write(chunk)
            go_on()
    return path


def _from_the_hub(file: RemoteFile, place: Path, go_on: Callable[[], None] = lambda: None) -> Path:
    """The file's content below ``place``, compared with what the Hub states of it."""
    return hub.DataSet(file.address).fetched(hub.HubFile(file.name, file.size, file.version), place, go_on)


def sweep_copies(context: RunContext) -> None:
    """Remove the copies that no run has used for a week, and what killed runs left."""
    folder = _folder(context.home)
    if not folder.is_dir():
        return
    removed = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.is_symlink():
                if not path.exists():
                    path.unlink()
                continue
            unused = time.time() - path.stat().st_atime
            if path.is_dir():
                if unused > KEPT_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            if unused < -KEPT_SECONDS:
                # The clock was set back, so the last use lies in the future. Count the week from now.
                mark_used(path)
            elif unused > KEPT_SECONDS:
                path.unlink()
                removed += 1
    if removed:
        context.say(f"{folder}: removed copies of {counted(removed, 'inputs')} that no run read for a week")


def _is_intact(copy: Path, size: int) -> bool:
    return is_intact(copy, digest=copy.name.partition(".")[0], size=size)


def _folder(home: Home) -> Path:
    return home.copies / "inputs"


def _copy(home: Home, digest: str, ending: str) -> Path:
    return _folder(home) / f"{digest}{ending}"
