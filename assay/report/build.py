"""From what a run's stages made to its page: measure, aggregate, draw a sample, compare, render.

The page is no result. Where it cannot be made, the run goes on without it, and a line says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import jinja2
import polars as pl
from markupsafe import Markup

from assay.core.errors import AssayError
from assay.report.aggregate import aggregated
from assay.report.compared import since
from assay.report.measures import measured_turns
from assay.report.page import Cost, PageContent, pictures, run_page
from assay.report.sample import ShownKind, sampled
from assay.report.warnings import warnings_of
from assay.rewards.spec import ModelSpec
from assay.score.scoring import ScoringWork
from assay.storage.manifests import Converted, Filtered, Scored
from assay.storage.run_manifest import REPORT, RunManifest
from assay.storage.stage import RunContext

T = TypeVar("T")

#: Every fault that the making of a page could have, its own mistakes included. Whatever it is, the results
#: are whole, and people have waited for them.
_FAULTS = (
    ArithmeticError,
    AssayError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    jinja2.TemplateError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)


@dataclass(frozen=True, slots=True)
class Before:
    """A folder of results that a run is compared with."""

    folder: Path
    shown: str
    """As a person would name it."""


@dataclass(frozen=True, slots=True)
class ToReport:
    """What a page is made of."""

    manifest: RunManifest
    converted: Converted
    scored: Scored | None
    filtered: Filtered
    models: Mapping[str, ModelSpec]
    """By its name in the manifest."""
    files: Path
    """The folder that holds the run's result files."""
    command: str
    """What repeats the run."""
    work: ScoringWork | None = None
    before: Before | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """A page, and what it shows in other places too. All is empty where none could be made."""

    page: bytes = b""
    warnings: tuple[str, ...] = ()
    pictures: Mapping[str, Markup] = field(default_factory=dict)
    kinds: tuple[ShownKind, ...] = ()
    """The conversations that it shows."""


def reported(given: ToReport, context: RunContext) -> Reported:
    """The page of a run. Nothing, and a warning on ``context``, where it cannot be made."""
    return made_or_warned(lambda: _reported(given, context), Reported(), context)


def made_or_warned(make: Callable[[], T], otherwise: T, context: RunContext) -> T:
    """What ``make`` returns: a page. ``otherwise``, and a warning on ``context``, where it fails."""
    try:
        return make()
    except _FAULTS as error:
        why = str(error).split("\n")[0] or type(error).__name__
        context.say(
            f"warning: {REPORT} could not be made ({type(error).__name__}: {why}). The results are whole; "
            "the same command tries again"
        )
        return otherwise


def _reported(given: ToReport, context: RunContext) -> Reported:
    manifest = given.manifest
    rules = [str(rule) for rule in manifest.options.get("keep") or ()]
    with measured_turns(given.converted, given.scored, given.filtered, context) as measures:
        figures = aggregated(measures, rules)
        kinds = sampled(
            measures, figures, given.converted, given.filtered, files=given.files, home=context.home
        )
    warnings = warnings_of(figures, manifest)
    before = given.before
    content = PageContent(
        manifest=manifest,
        figures=figures,
        warnings=warnings,
        kinds=kinds,
        since=None if before is None else since(before.folder, given.files, manifest, where=before.shown),
        models=given.models,
        command=given.command,
        cost=_cost(given.models, given.work),
    )
    return Reported(run_page(content), tuple(warnings), pictures(manifest, figures), tuple(kinds))


def _cost(models: Mapping[str, ModelSpec], work: ScoringWork | None) -> Cost | None:
    """What this run's scores cost; None where it scored nothing."""
    if work is None or not work.shards:
        return None
    tokens, seconds = sum(one.tokens for one in work.shards), sum(one.seconds for one in work.shards)
    usage = next(iter(models.values())).usage(work.turns_scored, tokens) if len(models) == 1 else None
    if usage is None:
        return Cost(tokens, seconds)
    return Cost(tokens, seconds, usage.requests, usage.cost, usage.currency)
