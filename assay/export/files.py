"""Result files as they are written: lines with a running digest, tables out of many frames."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from assay.core.digests import digest_of_content, digest_of_file, running_digest
from assay.storage.run_manifest import ExportedFile, PairsMade, Written

#: Frames are gathered to about this many rows before they go to disk.
_PART_ROWS = 500_000
# Set, because the default depends on how the frames were cut; part of what makes equal tables equal bytes.
_ROW_GROUP_ROWS = 1 << 17


@dataclass(frozen=True, slots=True)
class Exported:
    """The export stage's manifest."""

    files: dict[str, ExportedFile]
    """Every result file but ``manifest.json``, by its name in the folder: ``trl/sft.jsonl``."""
    exports: dict[str, Written]
    """What each export wrote, by the export's name."""
    pairs: PairsMade | None = None
    """What pairs were made; None where no export wants any."""


class Closing(ABC):
    """What is closed at the end of a ``with`` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release the file, whether or not it is whole."""


class LinesFile(Closing):
    """A file of JSON lines, digested while it is written. Give whole lines, line ends included."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=1 << 20)
        self._running = running_digest()
        self._size = 0
        self._rows = 0

    def write(self, lines: bytes, rows: int) -> None:
        """Append ``lines``, which are ``rows`` in number."""
        self._file.write(lines)
        self._running.update(lines)
        self._size += len(lines)
        self._rows += rows

    @property
    def rows(self) -> int:
        """Lines written so far."""
        return self._rows

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def close(self) -> None:
        """End the file."""
        self._file.close()

    @property
    def exported(self) -> ExportedFile:
        """What was written so far."""
        return ExportedFile(self._running.hexdigest(), self._size, self._rows)


class RankedLines(Closing):
    """JSON lines that come in another order than the one that they are to stand in.

    Lines wait in a file beside the one at ``path``; where those of each rank lie there is held in memory.
    """

    def __init__(self, path: Path) -> None:
        self._waiting = path.with_name(f".{path.name}.parts")
        self._file = self._waiting.open("xb", buffering=1 << 20)
        self._places: list[tuple[int, int, int, int]] = []
        self._size = 0

    def write(self, lines: bytes, rows: int, rank: int) -> None:
        """Take ``lines``, which are ``rows`` in number; those of one rank stay in their order."""
        self._file.write(lines)
        self._places.append((rank, self._size, len(lines), rows))
        self._size += len(lines)

    def ranked(self) -> Iterator[tuple[bytes, int]]:
        """Yield the lines and how many they are in the order of the ranks, once all is taken."""
        self._file.close()
        with self._waiting.open("rb") as waiting:
            for _, offset, size, rows in sorted(self._places):
                waiting.seek(offset)
                yield waiting.read(size), rows
        self._waiting.unlink()

    def close(self) -> None:
        """Release the file of lines that wait."""
        self._file.close()


class TableFile:
    """A Parquet file made from frames given one by one, of which few are in memory at a time.

    Equal rows in equal order give equal bytes, however they were divided into frames. Parts are kept
    in a folder beside the table until it is finished.
    """

    def __init__(self, path: Path, schema: Mapping[str, pl.DataType | type[pl.DataType]]) -> None:
        self._path = path
        self._schema = dict(schema)
        self._parts = path.with_name(f".{path.name}.parts")
        self._written: list[Path] = []
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0
        self._rows = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Append a frame that has the table's columns."""
        self._waiting.append(frame.select(pl.col(name).cast(kind) for name, kind in self._schema.items()))
        self._waiting_rows += frame.height
        self._rows += frame.height
        if self._waiting_rows >= _PART_ROWS:
            self._parts.mkdir(exist_ok=True)
            part = self._parts / f"{len(self._written):06d}.parquet"
            self._take_waiting().write_parquet(part, compression="lz4", statistics=False)
            self._written.append(part)

    def finish(self) -> ExportedFile:
        """Write the table and remove the parts."""
        last = self._take_waiting().lazy()
        table = pl.concat([*(pl.scan_parquet(part, glob=False) for part in self._written), last])
        table.sink_parquet(self._path, maintain_order=True, row_group_size=_ROW_GROUP_ROWS)
        if self._written:
            shutil.rmtree(self._parts)
        return ExportedFile(digest_of_file(self._path), self._path.stat().st_size, self._rows)

    def _take_waiting(self) -> pl.DataFrame:
        taken = pl.concat([pl.DataFrame(schema=self._schema), *self._waiting])
        self._waiting, self._waiting_rows = [], 0
        return taken


def write_file(path: Path, data: bytes) -> ExportedFile:
    """A file of these bytes, which has no rows. FileExistsError where there is one of its name."""
    with path.open("xb") as file:
        file.write(data)
    return ExportedFile(digest_of_content(data), len(data), None)
