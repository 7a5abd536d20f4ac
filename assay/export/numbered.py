"""An export of any size as numbered files: ``messages-00000-of-00012.jsonl``.

How many files there are shows at the end. Until then a file has a hidden name without that number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import polars as pl

from assay.core.errors import UserMistake
from assay.export.files import Closing, LinesFile, TableFile
from assay.storage.run_manifest import ExportedFile

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B", re.IGNORECASE)
_LETTERS = " KMGT"
#: The least size of a file. Below it, a run would make more files than anybody could use, or than have names.
_LEAST_BYTES = 10**6
#: Names have five digits, as the Hub's have (huggingface.co/docs/datasets, ``push_to_hub``).
_MOST = 99_999


def parse_shard_size(text: str | None) -> int | None:
    """The bytes that ``--shard-size`` means; None without one; UserMistake where it means none.

    >>> parse_shard_size("1GB"), parse_shard_size("1.5 MiB")
    (1000000000, 1572864)
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    size = 0 if found is None else float(found[1])
    if found is not None:
        size *= (1024 if found[3] else 1000) ** _LETTERS.index((found[2] or " ").upper())
    if found is None or size == float("inf"):
        raise UserMistake(f"--shard-size {text!r}: write a number of bytes with its unit, as 1GB or 500MB")
    if size < _LEAST_BYTES:
        raise UserMistake(f"--shard-size {text!r}: is less than 1MB. Write 1MB or more, as 500MB")
    return int(size)


def numbered(file: str, number: int, of: int) -> str:
    """The name of one of the files.

    >>> numbered("trl/sft.jsonl", 0, of=12)
    'trl/sft-00000-of-00012.jsonl'
    """
    path = PurePosixPath(file)
    return str(path.with_name(f"{path.stem}-{number:05}-of-{of:05}{path.suffix}"))


def all_numbered(file: str) -> str:
    """A pattern that fits all files beside this one that are numbered as it is, and no other.

    >>> all_numbered("trl/sft-00000-of-00012.jsonl")
    'trl/sft-?????-of-00012.jsonl'
    """
    return re.sub(r"-\d{5}(-of-\d{5}\.\w+)$", r"-?????\1", file)


class _Files:
    """The files so far, under hidden names beside ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hidden: list[Path] = []

    def next(self) -> Path:
        """Where the next file is to be written."""
        if len(self._hidden) == _MOST:
            raise UserMistake(f"{self._path.name}: more than {_MOST:,} files; raise --shard-size")
        self._hidden.append(self._path.with_name(f".{self._path.name}.{len(self._hidden):05}"))
        return self._hidden[-1]

    def named(self, name: str, written: list[ExportedFile]) -> dict[str, ExportedFile]:
        """Give the files their names; they by their names below the output folder."""
        names = [numbered(name, number, len(written)) for number in range(len(written))]
        for hidden, shown in zip(self._hidden, names, strict=True):
            os.rename(hidden, self._path.with_name(PurePosixPath(shown).name))
        return dict(zip(names, written, strict=True))


class NumberedLines(Closing):
    """JSON lines in files of at most ``limit`` bytes each; a longer line is a file of its own."""

    def __init__(self, path: Path, limit: int) -> None:
        self._files = _Files(path)
        self._limit = limit
        self._written: list[ExportedFile] = []
        self._file = LinesFile(self._files.next())

    def write(self, lines: bytes, rows: int) -> None:
        """Append whole ``lines``, which are ``rows`` in number."""
        while lines:
            room = self._limit - self._file.size
            end = len(lines) if len(lines) <= room else lines.rfind(b"\n", 0, max(room, 0)) + 1
            if end == 0 and self._file.size:
                self._end_file()
                self._file = LinesFile(self._files.next())
                continue
            end = end or lines.index(b"\n") + 1
            part = lines if end == len(lines) else lines[:end]
            self._file.write(part, rows if end == len(lines) else part.count(b"\n"))
            rows -= part.count(b"\n") if end < len(lines) else rows
            lines = lines[end:]

    def finish(self, name: str) -> dict[str, ExportedFile]:
        """The files by their names, once all is written."""
        self._end_file()
        return self._files.named(name, self._written)

    def close(self) -> None:
        """Release the file that is being written."""
        self._file.close()

    def _end_file(self) -> None:
        self._file.close()
        self._written.append(self._file.exported)


class NumberedTables:
    """A table in Parquet files, each of frames that hold ``limit`` bytes at most before compression."""

    def __init__(self, path: Path, schema: Mapping[str, pl.DataType | type[pl.DataType]], limit: int) -> None:
        self._files = _Files(path)
        self._limit = limit
        self._new: Callable[[], TableFile] = lambda: TableFile(self._files.next(), schema)
        self._table = self._new()
        self._size = 0
        self._written: list[ExportedFile] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Append a frame that has the table's columns."""
        size = int(frame.estimated_size())
        # A frame may hold many files' worth: rows are at least one a file.
        rows = max(1, frame.height * self._limit // max(size, 1))
        for part in frame.iter_slices(rows) if rows < frame.height else (frame,):
            self._add(part, size * part.height // max(frame.height, 1))

    def _add(self, frame: pl.DataFrame, size: int) -> None:
        if self._size and self._size + size > self._limit:
            self._written.append(self._table.finish())
            self._table, self._size = self._new(), 0
        self._table.add(frame)
        self._size += size

    def finish(self, name: str) -> dict[str, ExportedFile]:
        """The files by their names, once all is written."""
        self._written.append(self._table.finish())
        return self._files.named(name, self._written)
