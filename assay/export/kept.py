"""What a trainer's format is given: kept records, with the scores of their turns."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl


class KeptRecords(NamedTuple):
    """A bounded run of kept records of one file, in input order. Every turn has its scores."""

    file: str
    attributes: tuple[str, ...]
    records: pl.DataFrame
    """``row``, ``line``, ``part``, ``messages`` (a JSON array), ``rest`` (a JSON object, or null)."""
    scores: pl.DataFrame
    """``row``, ``turn`` and a Float32 column an attribute; the records' turns, ordered."""


class Lines(NamedTuple):
    """Whole JSON lines, line ends included, and how many they are."""

    data: bytes
    rows: int
