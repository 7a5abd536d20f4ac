"""The error for a Parquet or Arrow file, or a part of it, that is damaged."""

from __future__ import annotations


class DamagedTable(Exception):
    """A table's file, or a part of it, is damaged; the message says how."""
