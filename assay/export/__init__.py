"""Conversations with scores → files that trainers load, a file a trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.export import messages, steerlm
from assay.export.files import ExportedFile
from assay.export.kept import KeptRecords, Lines
from assay.export.results import Writer, write_converted, write_results
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored

__all__ = ["EXPORTS", "STAGE_VERSION", "Export", "ExportedFile", "build", "check_exports"]

STAGE_VERSION = 2


@dataclass(frozen=True, slots=True)
class Export:
    """A format that trainers load."""

    file: str
    """Its name in the output folder."""
    description: str
    """One line for a person who chooses."""
    lines: Callable[[KeptRecords], Lines]
    refusal: Callable[[Sequence[str]], str | None]
    """Why scores of these attributes cannot be written so; None where they can."""


EXPORTS: dict[str, Export] = {
    "steerlm": Export(
        "labeled.jsonl",
        "SteerLM rows, every assistant turn labelled 0-4 (NeMo-Aligner)",
        steerlm.lines,
        steerlm.refusal,
    ),
    "messages": Export(
        "messages.jsonl",
        "messages with raw scores (TRL, Axolotl, OpenAI fine-tuning)",
        messages.lines,
        messages.refusal,
    ),
}


def check_exports(exports: Sequence[str], attributes: Sequence[str]) -> None:
    """Nothing, or UserMistake where an export is unknown, or cannot be made of these attributes."""
    for name in exports:
        if name not in EXPORTS:
            choices = "; ".join(f"{known} ({export.description})" for known, export in EXPORTS.items())
            raise UserMistake(f"unknown export {name!r}{did_you_mean(name, EXPORTS)} (there are: {choices})")
        refusal = EXPORTS[name].refusal(attributes)
        if refusal is not None:
            raise UserMistake(f"Export {name} is refused: {refusal}.")


def build(
    converted: Converted,
    scored: Scored | None,
    filtered: Filtered,
    *,
    home: Home,
    staging: Path,
    exports: Sequence[str],
    stop_after: str | None = None,
) -> dict[str, ExportedFile]:
    """Every result file but ``manifest.json``, written into the empty folder ``staging``.

    ``stop_after`` ``convert`` takes no scores.
    """
    if stop_after == "convert":
        return write_converted(converted, filtered, home=home, staging=staging)
    if scored is None:
        raise TypeError("build needs scores unless the run stops after convert")
    writers = []
    if stop_after is None:
        writers = [Writer(EXPORTS[name].file, EXPORTS[name].lines) for name in dict.fromkeys(exports)]
    return write_results(converted, scored, filtered, writers, home=home, staging=staging)
