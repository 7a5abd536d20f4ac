"""Rows that are too many for memory: they wait on disk, parted by key, or in order."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import polars as pl

#: So many rows are held in memory and worked on together.
BUCKET_ROWS = 1 << 20

_BUCKET = ".bucket"
_LENGTH_BYTES = 8


class Buckets:
    """Frames of one schema, whose rows go to ``count`` buckets."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        """``folder`` is there, and the caller removes it."""
        self._folder = folder
        self._name = name
        self.count = count
        self.heights = [0] * count
        """The number of rows that were added to each bucket."""
        self._waiting: list[list[pl.DataFrame]] = [[] for _ in range(count)]
        self._rows = 0

    def add(self, frame: pl.DataFrame, bucket: pl.Expr | pl.Series) -> None:
        """Add the rows; ``bucket`` gives the number of each row's bucket."""
        if self.count == 1:
            self._waiting[0].append(frame)
            self.heights[0] += frame.height
        else:
            parted = frame.with_columns(bucket.cast(pl.UInt32).alias(_BUCKET))
            for (number,), rows in parted.partition_by(
                _BUCKET, as_dict=True, include_key=False, maintain_order=True
            ).items():
                self._waiting[number].append(rows)
                self.heights[number] += rows.height
        self._rows += frame.height
        if self._rows > BUCKET_ROWS and self.count > 1:
            self._put_down()

    def _put_down(self) -> None:
        """Append what waits to a file of each bucket: the frame's length in bytes, then the frame."""
        for number, frames in enumerate(self._waiting):
            if frames:
                written = io.BytesIO()
                pl.concat(frames).write_ipc(written, compression="lz4")
                with self._file(number).open("ab") as file:
                    file.write(written.tell().to_bytes(_LENGTH_BYTES, "little"))
                    file.write(written.getbuffer())
                self._waiting[number] = []
        self._rows = 0

    def _file(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number}.frames"

    def _put_down_before(self, number: int) -> Iterator[pl.DataFrame]:
        """Yield the frames that were put down, in their order."""
        if not self._file(number).exists():
            return
        with self._file(number).open("rb") as file:
            while length := file.read(_LENGTH_BYTES):
                yield pl.read_ipc(io.BytesIO(file.read(int.from_bytes(length, "little"))))

    def rows(self, number: int) -> pl.DataFrame | None:
        """All rows of a bucket, in the order in which they were added; None where it has none."""
        frames = [*self._put_down_before(number), *self._waiting[number]]
        return pl.concat(frames) if frames else None

    def drop(self, number: int) -> None:
        """Let go of the rows of a bucket."""
        self._file(number).unlink(missing_ok=True)
        self._waiting[number] = []


class Distinct:
    """Counts different values of a column of bytes."""

    def __init__(self, folder: Path, most: int) -> None:
        """``most``: about how many values are added, each as often as it comes."""
        self._values = Buckets(folder, "distinct", most // BUCKET_ROWS + 1)

    def add(self, values: pl.Series) -> None:
        """Add values."""
        name = values.name
        self._values.add(values.unique().to_frame(), pl.col(name).hash() % self._values.count)

    def count(self) -> int:
        """How many different values were added. They are let go."""
        total = 0
        for number in range(self._values.count):
            rows = self._values.rows(number)
            self._values.drop(number)
            total += 0 if rows is None else rows.to_series().n_unique()
        return total


class Parts:
    """Frames of one schema, in the order in which they were added."""

    def __init__(self, folder: Path, name: str) -> None:
        """``folder`` is there, and the caller removes it."""
        self._folder = folder
        self._name = name
        self._files: list[Path] = []
        self.height = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Add a frame."""
        path = self._folder / f"{self._name}-{len(self._files)}.parquet"
        frame.write_parquet(path, compression="lz4", statistics=False)
        self._files.append(path)
        self.height += frame.height

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Yield the frames."""
        for path in self._files:
            yield pl.read_parquet(path, glob=False)

    def scan(self) -> pl.LazyFrame:
        """All rows. There is one frame at least."""
        return pl.scan_parquet(self._files, glob=False)
