"""Files in which workers hand large results to the run. The run reads such a file once, and removes it.

A file holds parts, one after the other. What a worker returns goes through Dask's scheduler; a large result
would slow it down, so it goes in a file.
"""

from __future__ import annotations

import io
import secrets
import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import polars as pl

from assay.core.errors import AssayError
from assay.storage.artifacts import Artifacts, artifacts_of
from assay.storage.disk import full_disk_named
from assay.storage.home import Home


class Part(NamedTuple):
    """The size and the checksum of one part.

    A CRC-32 finds a part that is cut short or altered by accident, and takes less than half the time of a
    digest: 1.8 GB a second beside 0.7, measured. Nothing else checks a part.
    """

    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A file of parts that a worker has written."""

    path: str
    """Its path, below the artifacts' folder or address."""
    written: tuple[Part, ...]
    host: str
    """The name of the worker's machine."""

    def parts(self, files: Artifacts) -> Iterator[bytes]:
        """Yield the parts in order, and remove the file. AssayError if it is altered or missing."""
        place = files.place_of(self.path)
        with ExitStack() as stack:
            try:
                file = stack.enter_context(files.handed_over(self.path))
            except FileNotFoundError as error:
                raise AssayError(
                    f"worker on {self.host}: it wrote {place}, which this machine does not find. Let every "
                    "machine have the same ASSAY_HOME, or the same ASSAY_ARTIFACTS"
                ) from error
            for size, checksum in self.written:
                part = file.read(size)
                if len(part) != size or zlib.crc32(part) != checksum:
                    raise AssayError(f"{place}: is cut short or altered. Run again: it is made anew.")
                yield part


class Handing:
    """A file for the run that a worker is writing."""

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
        self._written.append(Part(len(part), zlib.crc32(part)))

    @property
    def handed_over(self) -> HandedOver:
        """The file, with the parts that were added so far."""
        return HandedOver(self._path, tuple(self._written), socket.gethostname())


@contextmanager
def handing_over(name: str, home: Home) -> Iterator[Handing]:
    """Yield a new file below the artifacts' folder or address. Readers see it once it is whole.

    Its name is ``name`` plus random letters: a job may be done twice, and each time needs a file of its own.
    """
    beginning, _, ending = name.rpartition(".")
    path = f"{beginning}-{secrets.token_hex(4)}.{ending}"
    with full_disk_named(home.root), artifacts_of(home).handing_over(path) as file:
        yield Handing(path, file)


def table_in(part: bytes) -> pl.DataFrame:
    """The table that was added as this part."""
    return pl.read_ipc(part)
