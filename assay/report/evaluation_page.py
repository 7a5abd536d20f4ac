"""The page of an evaluation: tables and pictures of how well models rank answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from assay.core.versions import VERSION
from assay.report.rendering import rendered_page
from assay.storage.manifests import InputFile

_FILES_LISTED = 40


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its title: the first column names a row, the others hold figures."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelContent:
    """What a page shows of one model."""

    name: str
    answers: Sequence[str]
    """Whether it is to be trusted, in sentences."""
    tables: Sequence[Section]
    accuracies: Markup | None = None
    by_margin: Markup | None = None


@dataclass(frozen=True, slots=True)
class EvaluationContent:
    """What a page of an evaluation shows."""

    title: str
    of: str
    """The benchmark and its number of rows."""
    opening: Sequence[str]
    warnings: Sequence[str]
    models: Sequence[ModelContent]
    together: Sequence[Section]
    """Tables of several models."""
    command: str
    provenance: Sequence[str]
    inputs: Sequence[InputFile]


def evaluation_page(content: EvaluationContent) -> bytes:
    """The page of an evaluation, in UTF-8."""
    return rendered_page(
        "evaluation.html.jinja", content=content, files_listed=_FILES_LISTED, version=VERSION
    )
