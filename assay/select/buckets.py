"""Rows parted by key into buckets, each small enough for memory. Where there are many, they wait on disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl

#: So many rows are held in memory and worked on together.
BUCKET_ROWS = 1 << 20

_BUCKET = ".bucket"


class Buckets:
    """Frames of one schema, whose rows go to ``count`` buckets."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        """``folder`` is there, and the caller removes it."""
        self._folder = folder
        self._name = name
        self.count = count
        self._waiting: list[list[pl.DataFrame]] = [[] for _ in range(count)]
        self._files: list[list[Path]] = [[] for _ in range(count)]
        self._rows = 0
        self._written = 0

    def add(self, frame: pl.DataFrame, bucket: pl.Expr) -> None:
        """Add the rows; ``bucket`` gives the number of each row's bucket."""
        if self.count == 1:
            self._waiting[0].append(frame)
        else:
            parted = frame.with_columns(bucket.cast(pl.UInt32).alias(_BUCKET))
            for (number,), rows in parted.partition_by(
                _BUCKET, as_dict=True, include_key=False, maintain_order=True
            ).items():
                self._waiting[number].append(rows)
        self._rows += frame.height
        if self._rows > BUCKET_ROWS and self.count > 1:
            self._put_down()

    def _put_down(self) -> None:
        for number, frames in enumerate(self._waiting):
            if frames:
                path = self._folder / f"{self._name}-{number}-{self._written}.arrow"
                pl.concat(frames).write_ipc(path, compression="lz4")
                self._files[number].append(path)
                self._waiting[number] = []
        self._written += 1
        self._rows = 0

    def rows(self, number: int) -> pl.DataFrame | None:
        """All rows of a bucket, in the order in which they were added; None where it has none."""
        frames = [pl.read_ipc(path) for path in self._files[number]]
        frames += self._waiting[number]
        return pl.concat(frames) if frames else None

    def drop(self, number: int) -> None:
        """Let go of the rows of a bucket."""
        for path in self._files[number]:
            path.unlink()
        self._files[number], self._waiting[number] = [], []
