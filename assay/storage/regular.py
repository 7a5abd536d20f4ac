"""Reading of regular files alone: opening a FIFO waits for ever, and ``/dev/zero`` has no end."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from assay.core.errors import UserMistake

_KINDS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


class NotRegular(OSError):
    """The path is no regular file; ``strerror`` says what it is."""


def why_not_regular(path: str | os.PathLike[str]) -> str | None:
    """Why ``path`` is not read, or None where it is a regular file or a link to one. It opens nothing.

    OSError where nothing is there.

    >>> why_not_regular("/dev/null")
    'it is a character device, and only regular files are read'
    """
    return _why_not(os.stat(path).st_mode)


def irregular_in(folder: Path) -> str | None:
    """Which file of a model's or tokenizer's folder is no regular file, and what it is; None where all are.

    Other libraries choose which of these files they read, and one FIFO would make them wait for ever. A
    link that leads nowhere counts as a missing file, and is reported only for weights, which are needed.
    """
    for path in sorted((*folder.iterdir(), *folder.glob("additional_chat_templates/*"))):
        if path.is_dir():
            continue
        try:
            reason = why_not_regular(path)
        except OSError as error:
            reason = error.strerror if path.suffix == ".safetensors" else None
        if reason is not None:
            return f"{path} cannot be read: {reason}"
    return None


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """The regular file at ``path``, or behind the link there, open for reading.

    NotRegular where it is something else; OSError as ``open`` raises it. It never waits, not even where
    somebody replaces the file with a FIFO meanwhile.
    """
    # Check before opening, because opening a device can have effects.
    _refuse(path, os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse(path, os.fstat(descriptor).st_mode)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """All bytes of the regular file at ``path``; raises what ``open_regular`` does."""
    with open_regular(path) as file:
        return file.read()


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the regular file at ``path``; UserMistake where it cannot be read, or is none."""
    try:
        content = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserMistake(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserMistake(f"{path}: a JSON object is expected")
    return content


def _refuse(path: str | os.PathLike[str], mode: int) -> None:
    reason = _why_not(mode)
    if reason is None:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise NotRegular(errno.EINVAL, reason, os.fspath(path))


def _why_not(mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    kind = "a folder" if stat.S_ISDIR(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")
    return f"it is {kind}, and only regular files are read"
