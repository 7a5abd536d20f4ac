"""Digests: 128-bit BLAKE2b everywhere, but for what others state in a digest of theirs.

They name things and find damage; they are no secret's guard.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Protocol

DIGEST_BYTES = 16
_CHUNK_BYTES = 1 << 20


class _Running(Protocol):
    """A digest that is fed piece by piece."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def running_digest() -> hashlib.blake2b:
    """A digest to feed piece by piece.

    >>> running = running_digest()
    >>> running.update(b"ab")
    >>> running.hexdigest() == digest_of_content(b"ab")
    True
    """
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def digest_of_bytes(*parts: bytes) -> str:
    """The digest of the parts, each preceded by its length, as 32 hex digits."""
    running = running_digest()
    for part in parts:
        running.update(b"%d:" % len(part))
        running.update(part)
    return running.hexdigest()


def digest_of_content(data: bytes) -> str:
    """The digest that ``digest_of_file`` gives for a file with this content."""
    running = running_digest()
    running.update(data)
    return running.hexdigest()


def digest_of_file(path: Path) -> str:
    """The digest of a file's bytes, as 32 hex digits."""
    return _fed(running_digest(), path)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as Git LFS states it."""
    return _fed(hashlib.sha256(), path)


def git_blob_of_file(path: Path) -> str:
    """The name that git gives to a file's content: SHA-1 of ``blob SIZE``, a NUL and the bytes."""
    return _fed(hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False), path)


def _fed(running: _Running, path: Path) -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            running.update(chunk)
    return running.hexdigest()


def sha256_for_policy(text: str) -> str:
    """The source expression by which a Content-Security-Policy allows this inline text (CSP level 3, 2.3.1).

    >>> sha256_for_policy("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
