"""How many records of a run say the same as an earlier one."""

from __future__ import annotations

import polars as pl

from assay.storage.artifacts import read_artifact
from assay.storage.home import Home
from assay.storage.manifests import Converted


def repeated_records(converted: Converted, home: Home) -> int:
    """The records whose messages through the last turn, and tools, an earlier record has too.

    Held are eight bytes a record. Two records in 5,000,000 are counted as equal by accident once in a
    million runs.
    """
    hashes = [pl.Series(dtype=pl.UInt64)]
    for piece in converted.pieces:
        turns = read_artifact(piece.turns, home, ["row", "key"])
        is_last = (pl.col("row") != pl.col("row").shift(-1)).fill_null(True)
        hashes.append(turns.filter(is_last).select(pl.col("key").hash())["key"])
    found = pl.concat(hashes)
    return found.len() - found.n_unique()
