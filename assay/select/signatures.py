"""The texts of a dataset that share most of their word shingles: signatures of each, and what hangs together.

Each text has a MinHash signature; texts with an equal band of it are compared by their whole signatures, each
with the one of the band whose content has the smallest key. What hangs together in this way is a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from rensa import RMinHash

from assay.select.duplicates import CLUSTER, CONTENT

#: Words of a shingle.
SHINGLE_WORDS = 3
#: Numbers of a signature: the standard error of a likeness of 0.8 is 0.035.
_NUMBERS = 128
_SEED = 42
#: Numbers that a band may have. More make fewer pairs to compare.
_BAND_NUMBERS = (32, 16, 8, 4, 2)
#: So many pairs that are as alike as they have to be may have no band in common.
_MISSED = 0.01

_WORD = re.compile(r"\w+")


def shingles(text: str) -> set[bytes]:
    """Every run of three words, in lower case. Of fewer words, all; without words, the text.

    >>> sorted(shingles("To be, or not"))
    [b'be or not', b'to be or']
    """
    words = _WORD.findall(text.lower())
    if len(words) < SHINGLE_WORDS:
        return {(" ".join(words) or text).encode()}
    return {
        " ".join(words[start : start + SHINGLE_WORDS]).encode()
        for start in range(len(words) - SHINGLE_WORDS + 1)
    }


class Signatures:
    """The signatures of the different texts of a dataset, on the disk."""

    def __init__(self, folder: Path, likeness: float) -> None:
        self._folder = folder
        self._likeness = likeness
        self._band = next(
            (one for one in _BAND_NUMBERS if (1 - likeness**one) ** (_NUMBERS // one) <= _MISSED), 1
        )
        self._keys: list[pl.DataFrame] = []

    def add(self, keys: Sequence[bytes], texts: Sequence[str]) -> None:
        """Take in texts with their content keys."""
        if not keys:
            return
        rows = np.array([_signature(text) for text in texts], dtype=np.uint32)
        rows.tofile(self._path(len(self._keys)))
        self._keys.append(
            pl.DataFrame({CONTENT: keys}, schema={CONTENT: pl.Binary}).with_columns(
                pl.lit(len(self._keys), pl.UInt32).alias("file"), pl.int_range(pl.len()).alias("place")
            )
        )

    def clusters(self) -> pl.DataFrame:
        """``CONTENT`` and ``CLUSTER``, the smallest index of those that hang together, of every text."""
        if not self._keys:
            return pl.DataFrame(schema={CONTENT: pl.Binary, CLUSTER: pl.UInt32})
        texts = pl.concat(self._keys).unique(CONTENT, keep="first", maintain_order=True).sort(CONTENT)
        texts = texts.with_row_index("index")
        pairs = pl.concat(list(self._candidates(texts))).unique().sort("first", "other")
        parents = np.arange(texts.height)
        for first, other in self._alike(pairs, texts).iter_rows():
            one, two = _root(parents, first), _root(parents, other)
            parents[max(one, two)] = min(one, two)
        roots = [_root(parents, index) for index in range(texts.height)]
        return texts.select(CONTENT, pl.Series(CLUSTER, roots, pl.UInt32))

    def _candidates(self, texts: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield, for each band, the pairs of texts that have it in common with the first that has it."""
        for start, end in pairwise(range(0, _NUMBERS + 1, self._band)):
            hashed = []
            for (file,), members in texts.group_by("file"):
                numbers = self._stored(int(str(file)))
                band = np.ascontiguousarray(numbers[members["place"].to_numpy(), start:end])
                keys = band.view(f"V{band.shape[1] * band.itemsize}").ravel()
                values = [one.tobytes() for one in keys]
                hashed.append(members.select("index", pl.Series("band", values, pl.Binary)))
            yield (
                pl.concat(hashed)
                .with_columns(pl.col("index").min().over("band").alias("first"))
                .filter(pl.col("first") < pl.col("index"))
                .select("first", pl.col("index").alias("other"))
            )

    def _alike(self, pairs: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
        """The pairs whose signatures are as alike as they have to be."""
        wanted = pl.concat([pairs["first"], pairs["other"]]).unique().sort()
        at = texts.filter(pl.col("index").is_in(wanted.implode()))
        numbers = np.zeros((at.height, _NUMBERS), dtype=np.uint32)
        placed = at.with_row_index("slot")
        for (file,), members in placed.group_by("file"):
            stored = self._stored(int(str(file)))
            numbers[members["slot"].to_numpy()] = stored[members["place"].to_numpy()]
        slots = dict(placed.select("index", "slot").iter_rows())
        alike = [
            bool(np.mean(numbers[slots[first]] == numbers[slots[other]]) >= self._likeness)
            for first, other in pairs.iter_rows()
        ]
        return pairs.filter(pl.Series(alike, dtype=pl.Boolean))

    def _stored(self, number: int) -> np.ndarray:
        """The signatures of a file, one a row, read as they are asked for."""
        return np.memmap(self._path(number), dtype=np.uint32, mode="r").reshape(-1, _NUMBERS)

    def _path(self, number: int) -> Path:
        return self._folder / f"signatures-{number}"


def _signature(text: str) -> list[int]:
    made = RMinHash(num_perm=_NUMBERS, seed=_SEED)
    made.update(sorted(shingles(text)))
    return list(made.digest())


def _root(parents: np.ndarray, index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = int(parents[index])
    return index
