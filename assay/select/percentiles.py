"""Percentiles over the dataset: counted value by value, so that the records themselves are held nowhere."""

from __future__ import annotations

import polars as pl

from assay.select.expressions import Percentile

#: With fewer values a percentile says little: a step is then more than one per cent.
FEWEST_VALUES = 100

#: Counts are merged once there are so many rows of them.
_MERGED_AT = 1 << 21

_VALUE, _BY, _COUNT, _SHARE = ".value", ".by", ".count", ".share"


class Distribution:
    """How often each value occurs, of one ``Percentile``."""

    def __init__(self, percentile: Percentile) -> None:
        self.percentile = percentile
        self._counts: list[pl.DataFrame] = []
        self._rows = 0
        self._shares: pl.DataFrame | None = None
        self.smallest = 0
        """How many values there are; with ``by``, in the part that has fewest."""

    def add(self, frame: pl.DataFrame) -> None:
        """Count the values of a frame that has the operand's column, and that of ``by``."""
        counts = self._values(frame).filter(pl.col(_VALUE).is_not_null())
        self._counts.append(counts.group_by(_BY, _VALUE).len(_COUNT))
        self._rows += self._counts[-1].height
        if self._rows > _MERGED_AT:
            self._counts = [self._merged()]
            # At least as many again are taken in before the next time.
            self._rows = 0

    def _values(self, frame: pl.DataFrame) -> pl.DataFrame:
        value = pl.col(self.percentile.operand.measured).cast(pl.Float64)
        by = self.percentile.by
        part = pl.lit("", pl.String) if by is None else pl.col(by.measured).cast(pl.String)
        return frame.select(part.alias(_BY), pl.when(value.is_finite()).then(value + 0.0).alias(_VALUE))

    def _merged(self) -> pl.DataFrame:
        return pl.concat(self._counts).group_by(_BY, _VALUE).agg(pl.col(_COUNT).sum())

    def close(self) -> None:
        """Turn the counts into shares, once all values are counted."""
        if not self._counts:
            return
        counts = self._merged().sort(_BY, _VALUE).with_columns(pl.col(_COUNT).cast(pl.Float64))
        self._counts = []
        whole = pl.col(_COUNT).sum().over(_BY)
        below = pl.col(_COUNT).cum_sum().over(_BY) - pl.col(_COUNT)
        # A record without a value in `by` is compared with no other.
        known = counts.filter(pl.col(_BY).is_not_null())
        self._shares = known.select(_BY, _VALUE, (100 * (below + pl.col(_COUNT) / 2) / whole).alias(_SHARE))
        sizes = known.group_by(_BY).agg(pl.col(_COUNT).sum())[_COUNT]
        self.smallest = int(sizes.min() or 0) if sizes.len() else 0  # type: ignore[arg-type]

    def of(self, frame: pl.DataFrame) -> pl.Series:
        """The percentile of each row, in order; null without a value."""
        if self._shares is None:
            return pl.Series(self.percentile.measured, [None] * frame.height, pl.Float64)
        found = self._values(frame).join(self._shares, on=[_BY, _VALUE], how="left", maintain_order="left")
        return found[_SHARE].alias(self.percentile.measured)
