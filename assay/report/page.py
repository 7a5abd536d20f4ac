"""The pages of a run and of a model's checks, made of what the other modules computed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from assay.core.text import counted
from assay.core.versions import VERSION
from assay.report import figures, overview
from assay.report.aggregate import Aggregated, OfAttribute, Quantiles
from assay.report.compared import Since
from assay.report.rendering import rendered_page
from assay.report.sample import ShownKind
from assay.rewards.spec import ModelSpec, Unknown
from assay.storage.run_manifest import RunManifest, RunModel

_FILES_LISTED = 40
#: From here on a correlation is drawn in a stronger shade; four shades.
_SHADES = (0.1, 0.3, 0.5, 0.7)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the scores of a run cost, where that is known."""

    tokens: int
    seconds: float
    """That workers took, or that a service's answers took."""
    requests: int = 0
    amount: float | None = None
    currency: str = ""


@dataclass(frozen=True, slots=True)
class PageContent:
    """What a page of a run shows."""

    manifest: RunManifest
    figures: Aggregated
    warnings: Sequence[str]
    kinds: Sequence[ShownKind]
    since: Since | None
    """None where there is no run to compare with."""
    models: Mapping[str, ModelSpec]
    """By its name in the run."""
    command: str
    cost: Cost | None = None


class _Card(NamedTuple):
    """What is known of a model."""

    name: str
    about: RunModel
    vouches: list[str]


class _Plot(NamedTuple):
    """The pictures of one attribute, and what the slider needs."""

    about: OfAttribute
    histogram: Markup
    curve: Markup
    by_source: Markup | None
    by_turn: Markup | None
    by_language: Markup | None
    data: str
    start: int
    """The threshold at which the slider begins."""


class _Cell(NamedTuple):
    text: str
    shade: str


def run_page(content: PageContent) -> bytes:
    """The page of a run, in UTF-8."""
    of_manifest, measured = content.manifest, content.figures
    trust = overview.is_the_model_to_be_trusted(measured, of_manifest, content.warnings)
    return rendered_page(
        "run.html.jinja",
        content=content,
        manifest=of_manifest,
        figures=measured,
        kept=list(overview.what_was_kept(of_manifest)),
        lost=list(overview.what_was_lost(of_manifest)),
        trust=list(trust),
        flow=figures.flow(of_manifest),
        plots=list(_plots(measured)),
        margins=figures.margins(measured.groups) if measured.groups and measured.groups.margins else None,
        lengths=_lengths(measured),
        correlations=list(_correlations(measured)),
        cards=list(_cards(content)),
        shown=sum(len(kind.conversations) + len(kind.originals) for kind in content.kinds),
        files_listed=_FILES_LISTED,
    )


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One check of a model's set-up, as people read it."""

    name: str
    measured: str
    allowed: str
    outcome: str
    """``pass``, ``FAIL``, or ``-`` where it only informs."""


def checks_page(model: str, lines: Sequence[CheckLine], verdict: str, command: str) -> bytes:
    """The page of a model's checks, in UTF-8."""
    return rendered_page(
        "checks.html.jinja",
        model=model,
        lines=lines,
        verdict=verdict,
        failed=sum(line.outcome == "FAIL" for line in lines),
        passed=sum(line.outcome == "pass" for line in lines),
        command=command,
        version=VERSION,
    )


def pictures(manifest: RunManifest, measured: Aggregated) -> dict[str, Markup]:
    """The pictures of a page by name, for places that show one at a time."""
    drawn = {"flow": figures.flow(manifest)}
    for one in measured.attributes:
        drawn[f"scores {one.name}"] = figures.histogram(one)
    if measured.groups is not None and measured.groups.margins is not None:
        drawn["margins"] = figures.margins(measured.groups)
    if (lengths := _lengths(measured)) is not None:
        drawn["lengths"] = lengths
    return drawn


def _plots(measured: Aggregated) -> Iterator[_Plot]:
    for one in measured.attributes:
        axis = figures.axis_of(one)
        kept_at = one.kept_at
        start = one.cuts[0].at if one.cuts else one.judged.at[2]
        nearest = min(
            range(len(kept_at.thresholds)), key=lambda place: abs(kept_at.thresholds[place] - start)
        )
        operator = one.cuts[0].operator if one.cuts else ">="
        data = {
            "name": one.name,
            "operator": operator,
            "whole": one.judged.count,
            "thresholds": kept_at.thresholds,
            "reaching": kept_at.at_least if operator in (">=", "<") else kept_at.above,
            "places": [round(axis.x(at), 1) for at in kept_at.thresholds],
        }
        yield _Plot(
            one,
            figures.histogram(one),
            figures.curve(one),
            _ranges(one.name, one.by_source, f"{one.name} of all turns, by source"),
            _ranges(one.name, one.by_turn, f"{one.name} of all turns, by their place in the conversation"),
            _ranges(one.name, one.by_language, f"{one.name} of last answers, by language"),
            json.dumps(data, separators=(",", ":")),
            nearest,
        )


def _ranges(name: str, rows: Sequence[tuple[str, Quantiles]], about: str) -> Markup | None:
    return figures.ranges(name, rows, about) if rows else None


def _lengths(measured: Aggregated) -> Markup | None:
    both = (("kept", measured.kept_lengths), ("dropped", measured.dropped_lengths))
    rows = [(name, spread) for name, spread in both if spread is not None]
    if not rows:
        return None
    return figures.ranges("characters of the last answer", rows, "The length of the last answers")


def _correlations(measured: Aggregated) -> Iterator[tuple[str, list[_Cell]]]:
    """Yield a row a column: its name, and a cell for each attribute."""
    found = measured.correlations
    if found is None:
        return
    places = [found.names.index(one.name) for one in measured.attributes]
    for name, row in zip(found.names, found.values, strict=True):
        yield name, [_cell(row[place]) for place in places]


def _cell(value: float | None) -> _Cell:
    if value is None:
        return _Cell("–", "")
    shade = sum(abs(value) >= limit for limit in _SHADES)
    sign = "plus" if value > 0 else "minus"
    shown = f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"
    return _Cell(shown, f"{sign}-{shade}" if shade else "")


def _cards(content: PageContent) -> Iterator[_Card]:
    """Yield each model with what its card vouches for."""
    manifest = content.manifest
    models = manifest.models or ({manifest.model.name: manifest.model} if manifest.model else {})
    for name, about in models.items():
        spec = content.models.get(name)
        yield _Card(name, about, [] if spec is None else list(_vouched(spec)))


def _vouched(spec: ModelSpec) -> Iterator[str]:
    length = spec.trained_length
    if isinstance(length, Unknown):
        yield f"Length: not known ({length.why})"
    else:
        yield f"Length: conversations of up to {counted(length, 'tokens')}"
    if spec.languages:
        yield f"Languages: {', '.join(spec.languages)}"
    else:
        yield "Languages: not known"
    unseen = spec.unseen_messages
    if isinstance(unseen, Unknown):
        yield f"Messages that its template leaves out: not known ({unseen.why})"
    elif unseen:
        yield f"Its template leaves out {', '.join(unseen)}"
    if spec.without_system:
        yield "Its card asks for conversations without a system message"
