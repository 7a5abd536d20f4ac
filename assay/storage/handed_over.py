"""What a worker hands to the run: parts one after the other in a file, which the run reads once and removes.

A result that is large would otherwise go through Dask's scheduler, as everything that workers return.
"""

from __future__ import annotations

import io
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import polars as pl

from assay.core.digests import digest_of_content
from assay.core.errors import AssayError
from assay.storage.artifacts import Artifacts, artifacts_of
from assay.storage.disk import full_disk_named
from assay.storage.home import Home


class Part(NamedTuple):
    """One of the parts, as it was written."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The parts in a file."""

    path: str
    """Below the place of artifacts."""
    written: tuple[Part, ...]
    host: str
    """The machine of the worker."""

    def parts(self, files: Artifacts) -> Iterator[bytes]:
        """Yield the parts in order, and remove the file. AssayError where it is altered, or not to be had."""
        place = files.place_of(self.path)
        with ExitStack() as stack:
            try:
                file = stack.enter_context(files.handed_over(self.path))
            except FileNotFoundError as error:
                raise AssayError(
                    f"worker on {self.host}: {place} is not there for this machine. Let every machine have "
                    "the same ASSAY_HOME, or the same ASSAY_ARTIFACTS"
                ) from error
            for size, digest in self.written:
                part = file.read(size)
                if digest_of_content(part) != digest:
                    raise AssayError(f"{place}: is cut short or altered. Run again: it is made anew.")
                yield part


class Handing:
    """A file that a worker hands to the run, while it is written."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._written: list[Part] = []

    def add(self, part: bytes | pl.DataFrame) -> None:
        """Append a part: bytes, or a table, which ``table_in`` reads back."""
        if isinstance(part, pl.DataFrame):
            content = io.BytesIO()
            part.write_ipc(content, compression="lz4")
            part = content.getvalue()
        self._file.write(part)
        self._written.append(Part(len(part), digest_of_content(part)))

    @property
    def handed_over(self) -> HandedOver:
        """What the file holds by now."""
        return HandedOver(self._path, tuple(self._written), socket.gethostname())


@contextmanager
def handing_over(name: str, home: Home) -> Iterator[Handing]:
    """Yield a file with this name, and more in it, below the place of artifacts. It is there once whole.

    No two files have one name: a job may be done twice, and its result names one of them.
    """
    beginning, _, ending = name.rpartition(".")
    path = f"{beginning}-{secrets.token_hex(4)}.{ending}"
    with full_disk_named(home.root), artifacts_of(home).handing_over(path) as file:
        yield Handing(path, file)


def table_in(part: bytes) -> pl.DataFrame:
    """The table that was added as this part."""
    return pl.read_ipc(part)
