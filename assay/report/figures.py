"""Every picture: figures → SVG, through a template each. Nothing is fetched, and nothing in one runs.

A function here decides where things stand (in units of the viewBox); ``templates/NAME.svg.jinja`` draws them,
and ``templates/figures.css`` has their colours. Texts are escaped by the template.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from assay.core.digests import digest_of_bytes
from assay.report.aggregate import OfAttribute, OfGroups, Quantiles, round_steps, share
from assay.report.shown_text import visible
from assay.storage.run_manifest import RunManifest

TEMPLATES = Path(__file__).parent / "templates"
_COMPILED = TEMPLATES / "__pycache__"

#: The least height of a band, so that one record of a million is seen.
_LEAST = 3.0
_FLOW_HEIGHT, _FLOW_ROW = 230.0, 22.0
_REASONS_DRAWN, _FILES_DRAWN = 7, 8
_LABEL = 38
#: Of histograms, curves and ranges: where the plot begins and ends.
_LEFT, _RIGHT, _WIDTH = 64.0, 700.0, 720.0


def _shown(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


class _Compiled(FileSystemBytecodeCache):
    """Compiled templates beside the templates, as Python keeps modules; none where they cannot be kept."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template. Jinja believes it only as long as it was made of the same source."""
        if not sys.dont_write_bytecode:
            with suppress(OSError):
                _COMPILED.mkdir(exist_ok=True)
                super().dump_bytecode(bucket)


@cache
def environment() -> Environment:
    """The templates, which escape every text and write out what is invisible in it."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_Compiled(str(_COMPILED)),
    )
    templates.filters["count"] = lambda number: f"{number:,}"
    templates.filters["percent"] = percent
    templates.filters["score"] = score
    templates.filters["frequent"] = frequent
    return templates


def frequent(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The counts by name, the largest first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def percent(part: int, whole: int) -> str:
    """A share in per cent with one digit; never 0.0% or 100.0% where that is not exact.

    >>> percent(1, 3), percent(1, 100_000), percent(0, 0)
    ('33.3%', '< 0.1%', '0%')
    """
    if not part or not whole:
        return "0%"
    if part == whole:
        return "100%"
    value = 100 * share(part, whole)
    if value < 0.1:
        return "< 0.1%"
    return "> 99.9%" if value > 99.9 else f"{value:.1f}%"


def score(number: float) -> str:
    """A score with three digits behind the point, fewer where it is large.

    >>> score(1.23456), score(-0.0001), score(12345.678)
    ('1.235', '-0.0001', '12,346')
    """
    if number and abs(number) < 0.001:
        return f"{number:.1g}"
    return f"{number:.3f}" if abs(number) < 100 else f"{number:,.0f}"


def svg(template: str, **parts: object) -> Markup:
    """The picture that the template draws of these parts."""
    # In one document, no two pictures may share the names of their parts; equal pictures may.
    number = digest_of_bytes(template.encode(), repr(parts).encode())[:8]
    return Markup(environment().get_template(template).render(number=number, **parts).strip())


def standalone(picture: Markup) -> str:
    """The picture with its colours inside, for a place that has none of ours."""
    # The page around it may be light where the system is dark: it brings its own paper.
    paper = "svg{background:var(--plain)}"
    style = f"<style>{(TEMPLATES / 'figures.css').read_text()}{paper}</style>"
    head, _, rest = str(picture).partition(">")
    return f"{head}>{style}{rest}"


def address(picture: Markup) -> str:
    """The picture as a ``data:`` address, which a page shows without asking anybody for it."""
    return "data:image/svg+xml;base64," + base64.b64encode(standalone(picture).encode()).decode()


# --- what went in and came out --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Node:
    """Where a part of the records goes."""

    kind: str
    """``kept``, ``dropped`` or ``quarantined``."""
    label: str
    records: int
    of_all: str
    y: float
    height: float
    band: str
    """The path from what was read to here."""


@dataclass(frozen=True, slots=True)
class _FileNode:
    label: str
    rows: int
    left_out: int
    y: float
    written: float
    """The height of the part that the file holds."""
    lacking: float
    band: str


def flow(manifest: RunManifest) -> Markup:
    """Read → kept, dropped by reason, quarantined by reason → the files, and what they leave out."""
    rows = manifest.rows
    parts = [("kept", "kept", rows.kept)] if rows.kept or not rows.read else []
    for kind, counts in (("dropped", manifest.dropped), ("quarantined", manifest.quarantined)):
        parts += [(kind, label, count) for label, count in _gathered(counts)]
    heights = [max(_LEAST, _FLOW_HEIGHT * share(count, rows.read)) for _, _, count in parts]
    nodes: list[_Node] = []
    y, from_y = 30.0, 30.0
    for (kind, label, count), height in zip(parts, heights, strict=True):
        band = _band(26, from_y, height, 250, y, height)
        nodes.append(_Node(kind, _cut(label), count, percent(count, rows.read), y, height, band))
        from_y += height
        y += max(height + 6, _FLOW_ROW)
    files = list(_files(manifest, nodes[0])) if nodes and nodes[0].kind == "kept" and rows.kept else []
    bottom = max([y, from_y, *(one.y + 30 for one in files)]) + 8
    return svg(
        "flow.svg.jinja",
        read=rows.read,
        total=sum(heights),
        nodes=nodes,
        files=files,
        height=bottom,
        rows=rows,
    )


def _gathered(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield the most frequent reasons, and one entry for all others."""
    ordered = frequent(counts)
    many = len(ordered) > _REASONS_DRAWN
    drawn = ordered[: _REASONS_DRAWN - 1] if many else ordered
    yield from drawn
    if many:
        others = ordered[len(drawn) :]
        yield f"{len(others):,} more reasons", sum(count for _, count in others)


def _files(manifest: RunManifest, kept: _Node) -> Iterator[_FileNode]:
    y = 30.0
    for written in list(manifest.exports.values())[:_FILES_DRAWN]:
        left_out = sum(written.left_out.values())
        whole = written.rows + left_out
        lacking = max(_LEAST, 20 * share(left_out, whole)) if left_out else 0.0
        held = 20 - lacking if written.rows else 0.0
        middle = kept.y + kept.height / 2
        yield _FileNode(
            _cut(written.file, 30),
            written.rows,
            left_out,
            y,
            held,
            20 - held if left_out else 0.0,
            _band(264, middle - min(4, kept.height / 2), min(8, kept.height), 480, y, max(held, _LEAST)),
        )
        y += 42.0


def _band(x: float, y: float, height: float, to_x: float, to_y: float, to_height: float) -> str:
    """The path of a band that bends from one place to another."""
    middle = (x + to_x) / 2
    return (
        f"M{x:.1f},{y:.1f} C{middle:.1f},{y:.1f} {middle:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f} "
        f"V{to_y + to_height:.1f} C{middle:.1f},{to_y + to_height:.1f} {middle:.1f},{y + height:.1f} "
        f"{x:.1f},{y + height:.1f} Z"
    )


def _cut(label: str, most: int = _LABEL) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"


# --- plots on one axis ----------------------------------------------------------------------------


class _Tick(NamedTuple):
    at: float
    label: str


class Axis(NamedTuple):
    """Numbers from ``low`` to ``high``, laid from ``_LEFT`` to ``_RIGHT``."""

    low: float
    high: float
    left: float = _LEFT
    right: float = _RIGHT

    def x(self, number: float) -> float:
        """Where the number stands."""
        if self.high <= self.low:
            return (self.left + self.right) / 2
        return self.left + (self.right - self.left) * (number - self.low) / (self.high - self.low)

    def ticks(self, at_most: int = 8) -> list[_Tick]:
        """Round numbers on it."""
        inside = [one for one in round_steps(self.low, self.high, at_most) if self.low <= one <= self.high]
        return [_Tick(self.x(one), f"{one:g}") for one in inside]


def axis_of(one: OfAttribute) -> Axis:
    """The axis that the pictures of an attribute share."""
    return Axis(one.kept_at.thresholds[0], one.kept_at.thresholds[-1])


class _Bar(NamedTuple):
    x: float
    width: float
    kept: float
    dropped: float
    about: str


class _CutLine(NamedTuple):
    x: float
    label: str
    anchor: str
    """On which side of the line its label stands: at an end of the axis it would leave the picture."""


def histogram(one: OfAttribute) -> Markup:
    """How many records have which score, the kept ones below the dropped ones, with the cuts of rules."""
    axis, bars = axis_of(one), one.bars
    most = max(1, *(kept + dropped for kept, dropped in zip(bars.kept, bars.dropped, strict=True)))
    step = (bars.high - bars.low) / len(bars.kept)
    drawn = []
    for place, (kept, dropped) in enumerate(zip(bars.kept, bars.dropped, strict=True)):
        if not kept + dropped:
            continue
        low = bars.low + place * step
        x = axis.x(low)
        width = max(1.5, axis.x(low + step) - x - 1) if step else 8.0
        about = f"{low:.3g} to {low + step:.3g}: {kept:,} kept, {dropped:,} dropped"
        drawn.append(_Bar(x if step else x - 4, width, 110 * kept / most, 110 * dropped / most, about))
    return svg(
        "histogram.svg.jinja",
        name=one.name,
        records=one.judged.count,
        bars=drawn,
        ticks=axis.ticks(),
        most=most,
        cuts=_cut_lines(one, axis),
        left=_LEFT,
        right=_RIGHT,
    )


def _cut_lines(one: OfAttribute, axis: Axis) -> list[_CutLine]:
    inside = [cut for cut in one.cuts if axis.low <= cut.at <= axis.high]
    lines = []
    for cut in inside:
        x = axis.x(cut.at)
        anchor = "end" if x > axis.right - 40 else "start" if x < axis.left + 40 else "middle"
        lines.append(_CutLine(x, f"{cut.operator} {cut.at:g}", anchor))
    return lines


def curve(one: OfAttribute) -> Markup:
    """The share of the records that have at least a score, with a mark that can be moved."""
    axis, whole = axis_of(one), one.judged.count
    points = [
        (axis.x(at), 10 + 120 * (1 - share(count, whole)))
        for at, count in zip(one.kept_at.thresholds, one.kept_at.at_least, strict=True)
    ]
    # Steps: between two thresholds nothing is counted.
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    path += "".join(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])
    start = axis.x(one.cuts[0].at) if one.cuts else axis.x(one.judged.at[2])
    return svg(
        "curve.svg.jinja",
        name=one.name,
        path=path,
        ticks=axis.ticks(),
        cuts=_cut_lines(one, axis),
        start=start,
        left=_LEFT,
        right=_RIGHT,
    )


class _Range(NamedTuple):
    label: str
    whole: str
    number: int
    y: float
    whisker: tuple[float, float]
    box: tuple[float, float]
    middle: float
    about: str


def ranges(what: str, rows: Sequence[tuple[str, Quantiles]], about: str) -> Markup:
    """A row each: 5 to 95 per cent as a line, the middle half as a box, the median as a stroke."""
    low = min(spread.at[0] for _, spread in rows)
    high = max(spread.at[4] for _, spread in rows)
    axis = Axis(low, high, left=190.0, right=620.0)
    drawn = [
        _Range(
            end_of(label, 26),
            label,
            spread.count,
            26.0 + 24 * number,
            (axis.x(spread.at[0]), axis.x(spread.at[4])),
            (axis.x(spread.at[1]), axis.x(spread.at[3])),
            axis.x(spread.at[2]),
            f"{label}: 5% {score(spread.at[0])}, 25% {score(spread.at[1])}, median {score(spread.at[2])}, "
            f"75% {score(spread.at[3])}, 95% {score(spread.at[4])}",
        )
        for number, (label, spread) in enumerate(rows)
    ]
    return svg(
        "ranges.svg.jinja",
        what=what,
        about=about,
        rows=drawn,
        ticks=axis.ticks(6),
        height=26 + 24 * len(rows) + 34,
        left=axis.left,
        right=axis.right,
    )


def end_of(label: str, most: int) -> str:
    """The end of a long label: files of one folder differ there."""
    return label if len(label) <= most else f"…{label[1 - most :]}"


def margins(groups: OfGroups) -> Markup:
    """How far apart the best and the worst answer to a prompt are."""
    low, high, counts = groups.margin_bars
    axis, most = Axis(low, high), max(1, *counts)
    step = (high - low) / len(counts)
    drawn = []
    for place, count in enumerate(counts):
        if count:
            at = low + place * step
            width = max(1.5, axis.x(at + step) - axis.x(at) - 1) if step else 8.0
            about = f"{at:.3g} to {at + step:.3g}: {count:,} groups"
            drawn.append(_Bar(axis.x(at), width, 110 * count / most, 0.0, about))
    return svg(
        "margins.svg.jinja",
        name=groups.ranked_by,
        groups=groups.prompts - groups.level,
        bars=drawn,
        ticks=axis.ticks(),
        most=most,
        left=_LEFT,
        right=_RIGHT,
    )
