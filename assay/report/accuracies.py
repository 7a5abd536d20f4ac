"""Pictures of how often a model is right: with its interval and its baselines, and by margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from assay.report.figures import Axis, end_of, svg

_ROW = 24
_TOP = 44.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a model is right in a part of a benchmark. All shares are from 0 to 1."""

    name: str
    share: float
    interval: tuple[float, float] | None
    counts: str
    """``208/350``."""
    length_only: float | None
    """Where the longer answer counts as the better one."""
    starter: float | None


class _Row(NamedTuple):
    label: str
    y: float
    at: float
    interval: tuple[float, float] | None
    length_only: float | None
    starter: float | None
    counts: str
    about: str


def accuracies(model: str, rows: Sequence[Accuracy]) -> Markup:
    """A row each: the accuracy as a dot, its 95% interval as a line, the baselines as marks."""
    axis = Axis(0, 100, left=190.0, right=620.0)

    def placed(share: float | None) -> float | None:
        return None if share is None else axis.x(100 * share)

    drawn = [
        _Row(
            end_of(row.name, 26),
            _TOP + _ROW * number,
            axis.x(100 * row.share),
            None if row.interval is None else (axis.x(100 * row.interval[0]), axis.x(100 * row.interval[1])),
            placed(row.length_only),
            placed(row.starter),
            row.counts,
            _about(row),
        )
        for number, row in enumerate(rows)
    ]
    return svg(
        "accuracies.svg.jinja",
        model=model,
        rows=drawn,
        ticks=axis.ticks(6),
        has_starter=any(row.starter is not None for row in rows),
        top=_TOP,
        height=_TOP + _ROW * len(rows) + 34,
        left=axis.left,
        right=axis.right,
    )


def _about(row: Accuracy) -> str:
    text = f"{row.name}: {100 * row.share:.1f}% right ({row.counts})"
    if row.interval is not None:
        text += f", 95% {100 * row.interval[0]:.1f} to {100 * row.interval[1]:.1f}"
    if row.length_only is not None:
        text += f", the longer answer {100 * row.length_only:.1f}"
    return text if row.starter is None else f"{text}, the starter {100 * row.starter:.1f}"


@dataclass(frozen=True, slots=True)
class AtMargin:
    """The pairs whose scores differ by at least so much. Shares are from 0 to 1."""

    margin: float
    accuracy: float
    of_all: float
    """The share of all pairs that these are."""


def by_margin(model: str, steps: Sequence[AtMargin]) -> Markup:
    """The accuracy, and the share of pairs that is left, by how much two scores differ at least."""
    axis = Axis(steps[0].margin, steps[-1].margin)

    def height(share: float) -> float:
        return 10 + 120 * (1 - share)

    def path(shares: Sequence[float]) -> str:
        points = [
            f"{axis.x(step.margin):.1f},{height(share):.1f}"
            for step, share in zip(steps, shares, strict=True)
        ]
        return "M" + "L".join(points)

    return svg(
        "by_margin.svg.jinja",
        model=model,
        right_path=path([step.accuracy for step in steps]),
        share_path=path([step.of_all for step in steps]),
        first=steps[0],
        last=steps[-1],
        ticks=axis.ticks(),
        left=axis.left,
        right=axis.right,
    )
