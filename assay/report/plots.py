"""How scores are spread, as a picture: an SVG of one row of bars an attribute.

Of text it holds the attributes' names, escaped, and nothing from the data.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import polars as pl

from assay.storage.disk import damage_named
from assay.storage.home import Home
from assay.storage.manifests import Scored

_BINS = 24
_WIDTH, _ROW_HEIGHT, _BARS_HEIGHT = 520, 96, 52
_LEFT, _TOP = 12, 26


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of turns in equal steps from ``low`` to ``high``, both included."""

    attribute: str
    low: float
    high: float
    counts: tuple[int, ...]


def histograms(scored: Scored, home: Home) -> list[Histogram]:
    """One an attribute that has scores. The scores are read twice, a piece at a time."""
    with damage_named(home.artifacts / "score"):
        return list(_histograms(scored, home))


def _histograms(scored: Scored, home: Home) -> Iterator[Histogram]:
    paths = [home.artifacts / piece.scores.path for piece in scored.pieces]
    for attribute in scored.attributes:
        pieces = [pl.scan_parquet(path, glob=False).select(attribute).drop_nulls() for path in paths]
        bounds = [
            piece.select(pl.min(attribute), pl.max(attribute).alias("high")).collect().row(0)
            for piece in pieces
        ]
        lows = [low for low, _ in bounds if low is not None]
        if not lows:
            continue
        low, high = min(lows), max(high for _, high in bounds if high is not None)
        step = (high - low) / _BINS or 1.0
        place = ((pl.col(attribute).cast(pl.Float64) - low) / step).floor().clip(0, _BINS - 1).cast(pl.Int32)
        counts = [0] * _BINS
        for piece in pieces:
            for number, count in piece.select(place.alias("bin")).group_by("bin").len().collect().iter_rows():
                counts[number] += count
        yield Histogram(attribute, low, high, tuple(counts))


def picture(found: Sequence[Histogram]) -> str:
    """The histograms as an SVG that needs nothing from elsewhere and runs nothing."""
    height = _ROW_HEIGHT * len(found) + 8
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    bar_width = (_WIDTH - 2 * _LEFT) / _BINS
    for row, one in enumerate(found):
        top, most = row * _ROW_HEIGHT + _TOP, max(one.counts)
        turns = sum(one.counts)
        title = f"{escape(one.attribute)}: {turns:,} turn{'s' * (turns != 1)}, at most {most:,} a bar"
        drawn.append(f'<text x="{_LEFT}" y="{top - 8}" fill="#222222">{title}</text>')
        for place, count in enumerate(one.counts):
            tall = _BARS_HEIGHT * count / most
            drawn.append(
                f'<rect x="{_LEFT + place * bar_width:.1f}" y="{top + _BARS_HEIGHT - tall:.1f}" '
                f'width="{bar_width - 1:.1f}" height="{tall:.1f}" fill="#2a6f97"/>'
            )
        base = top + _BARS_HEIGHT
        drawn.append(
            f'<line x1="{_LEFT}" y1="{base}" x2="{_WIDTH - _LEFT}" y2="{base}" stroke="#888888"/>'
            f'<text x="{_LEFT}" y="{base + 12}" fill="#555555">{one.low:.2f}</text>'
            f'<text x="{_WIDTH - _LEFT}" y="{base + 12}" fill="#555555" text-anchor="end">'
            f"{one.high:.2f}</text>"
        )
    return "".join([*drawn, "</svg>"])


def picture_address(found: Sequence[Histogram]) -> str:
    """The picture as a ``data:`` address, which a page shows without asking anybody for it."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture(found).encode()).decode()
