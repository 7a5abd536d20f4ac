"""Inputs on S3: list them, copy them whole to this machine, then read the copies.

A copy is named by the digest of its content. A link to it is named by the object's address and ETag. So an
object is fetched once, and fetched again when somebody replaces it.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from assay.core.digests import digest_of_bytes, running_digest
from assay.core.errors import InputFault, StoreRefusal, UserMistake
from assay.core.text import counted
from assay.read.sources import KNOWN_ENDINGS
from assay.storage.disk import full_disk_named
from assay.storage.home import Home, is_intact
from assay.storage.manifests import InputFile
from assay.storage.private import make_private, opener
from assay.storage.s3 import CONNECTIONS, SCHEME, Found, Objects, is_address, is_remote
from assay.storage.stage import RunContext

#: A copy that no run has used for this long is removed.
KEPT_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An object to read."""

    address: str
    found: Found


def _ending(address: str) -> str:
    """The known ending of the address, which shows format and compression; empty where it has none."""
    known = (ending for ending in KNOWN_ENDINGS if address.lower().endswith(ending))
    return max(known, key=len, default="")


def local_path(file: InputFile, home: Home) -> str:
    """The path of the file's bytes on this machine.

    For an object, that is its copy. A copy that was removed meanwhile is made again. Where the object has
    changed or is gone, nothing lies at the path.
    """
    if not is_remote(file.path):
        return file.path
    path = _copy(home, file.digest, _ending(file.path))
    if not path.exists():
        with suppress(UserMistake):
            for found in remote_files(file.path):
                if found.address == file.path:
                    copied(found, home)
    return str(path)


def remote_files(given: str) -> list[RemoteFile]:
    """The objects that an address stands for, sorted: one, those below it, or those that a glob matches.

    UserMistake where there are none, or where S3 refuses to list them.
    """
    bucket, _, key = given.removeprefix(SCHEME).partition("/")
    if not is_address(f"{SCHEME}{bucket}"):
        raise UserMistake(f"{given}: is not of the form s3://BUCKET/NAME.")
    literal = key[: next((place for place, sign in enumerate(key) if sign in "*?["), len(key))]
    objects = Objects(f"{SCHEME}{bucket}")
    try:
        found = [one for one in objects.list_all(literal) if not one.name.endswith("/")]
    except StoreRefusal as error:
        raise UserMistake(str(error)) from error
    folder = f"{key.rstrip('/')}/" if key else ""
    if chosen := [one for one in found if one.name == key]:
        pass
    elif glob.has_magic(key):
        pattern = key.split("/")
        chosen = [one for one in found if _matches(pattern, one.name.split("/"))]
    else:
        below = [(one, one.name.removeprefix(folder)) for one in found if one.name.startswith(folder)]
        chosen = [
            one
            for one, name in below
            if name.lower().endswith(KNOWN_ENDINGS)
            and not any(part.startswith(".") for part in name.split("/"))
        ]
        if below and not chosen:
            raise UserMistake(f"{given}: holds no file that ends in {', '.join(KNOWN_ENDINGS)}.")
    if not chosen:
        raise UserMistake(f"{given}: there is no such object, and none that matches.")
    return [
        RemoteFile(f"{SCHEME}{bucket}/{one.name}", one) for one in sorted(chosen, key=lambda one: one.name)
    ]


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
    """The paths of the objects' copies, in the order of the objects. Several are fetched at a time.

    Where one fails, it stops the others and raises what ``copied`` raises.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            return list(pool.map(lambda file: copied(file, home, stop), files))
        except BaseException:
            stop.set()
            raise


def copied(file: RemoteFile, home: Home, stop: threading.Event | None = None) -> str:
    """The path of a whole copy of the object. The copy is made now if there is none.

    InputFault where the object has changed or is gone since it was listed, and once ``stop`` is set.
    """
    folder = _folder(home)
    link = folder / digest_of_bytes(file.address.encode(), file.found.etag.encode())
    with suppress(OSError):
        copy = folder / os.readlink(link)
        if _is_intact(copy, file.found.size):
            # Touch atime (last use); keep mtime, which ``Stamp`` compares.
            os.utime(copy, ns=(time.time_ns(), copy.stat().st_mtime_ns))
            return str(copy)
    make_private(folder)
    mine = uuid.uuid4().hex
    temporary = folder / f".{mine}.tmp"
    bucket, _, key = file.address.removeprefix(SCHEME).partition("/")
    try:
        with full_disk_named(folder):
            running = running_digest()
            size = 0
            with open(temporary, "xb", opener=opener) as out:
                for chunk in Objects(f"{SCHEME}{bucket}").chunks(key, etag=file.found.etag):
                    out.write(chunk)
                    running.update(chunk)
                    size += len(chunk)
                    if stop is not None and stop.is_set():
                        raise InputFault(f"{file.address}: the download was stopped.")
            if size != file.found.size:
                raise InputFault(f"{file.address}: was changed or removed since it was listed. Run again.")
            copy = _copy(home, running.hexdigest(), _ending(file.address))
            # Another run may be reading a copy with the same content: do not replace that file.
            if not _is_intact(copy, size):
                temporary.replace(copy)
            pointing = folder / f".{mine}.link.tmp"
            pointing.symlink_to(copy.name)
            pointing.replace(link)
    finally:
        temporary.unlink(missing_ok=True)
    return str(copy)


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
            if unused < -KEPT_SECONDS:
                # The clock was set back, so the last use lies in the future. Count the week from now.
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
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
