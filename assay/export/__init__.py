"""Conversations with scores → files that trainers load, a file a trainer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.export import messages, steerlm
from assay.export.files import ExportedFile
from assay.export.folder import OutputFolder
from assay.export.kept import KeptRecords, Lines
from assay.export.results import Writer, write_converted, write_results
from assay.storage.home import Home, digest_of_bytes
from assay.storage.manifests import Converted, Filtered, Scored, to_json
from assay.storage.private import FOLDER
from assay.storage.stage import RunContext, Stage

__all__ = ["EXPORTS", "Export", "ExportedFile", "build", "check_exports"]


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


@dataclass(frozen=True, slots=True)
class ToExport:
    """What result files are made of, and where."""

    converted: Converted
    scored: Scored | None
    """None for a run that stops before scoring."""
    filtered: Filtered
    exports: tuple[str, ...]
    folder: OutputFolder
    """Where the files will be published. Files that it holds already are not made again."""
    staging: Path
    """Where they are made: a new folder beside it."""
    stop_after: Literal["convert", "score"] | None = None


def _key(given: ToExport) -> str:
    """A digest of all that the result files depend on; where they are written is not among it."""
    scored = given.scored
    scores = [piece.scores.digest for piece in scored.pieces] if scored else None
    decisions = [piece.decisions.digest for piece in given.filtered.pieces]
    attributes = scored.attributes if scored else None
    return digest_of_bytes(
        given.converted.digest.encode(),
        to_json((attributes, scores, decisions, sorted(given.exports), given.stop_after)),
    )


def _is_current(given: ToExport, files: dict[str, ExportedFile], home: Home) -> bool:
    """Whether the output folder holds these very files."""
    return given.folder.holds(files)


def build(given: ToExport, context: RunContext) -> dict[str, ExportedFile]:
    """Every result file but ``manifest.json``, by name, made in ``staging``."""
    converted, scored, filtered, home = given.converted, given.scored, given.filtered, context.home
    staging, stop_after = given.staging, given.stop_after
    if any(staging.iterdir()):  # An attempt before this one failed.
        shutil.rmtree(staging)
        staging.mkdir(mode=FOLDER)
    if stop_after == "convert":
        return write_converted(converted, filtered, home=home, staging=staging)
    if scored is None:
        raise TypeError("build needs scores unless the run stops after convert")
    writers = []
    if stop_after is None:
        writers = [Writer(EXPORTS[name].file, EXPORTS[name].lines) for name in dict.fromkeys(given.exports)]
    return write_results(converted, scored, filtered, writers, home=home, staging=staging)


#: Files that are not in this folder are no loss: another run may have put them into another.
EXPORT = Stage("export", 3, dict[str, ExportedFile], _key, _is_current, build, says_when_stale=False)
