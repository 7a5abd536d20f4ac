"""Conversations with scores → files that trainers load, a file a trainer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from assay.core.digests import digest_of_bytes
from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.export.contract import Export
from assay.export.files import Exported
from assay.export.folder import OutputFolder
from assay.export.messages import MESSAGES
from assay.export.results import write_results
from assay.export.steerlm import CONVERTED, STEERLM
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored, to_json
from assay.storage.private import FOLDER
from assay.storage.stage import RunContext, Stage

__all__ = [
    "DEFAULT_EXPORTS",
    "EXPORT",
    "EXPORTS",
    "Export",
    "Exported",
    "ToExport",
    "build",
    "check_exports",
    "wanted",
]


#: By name. One more trainer is a module and a line here.
EXPORTS: dict[str, Export] = {export.name: export for export in (STEERLM, MESSAGES)}

#: What is written unless ``--export`` is given.
DEFAULT_EXPORTS = (STEERLM.name,)


def check_exports(exports: Sequence[str], columns: Sequence[str]) -> None:
    """Nothing, or UserMistake where an export is unknown, or has none of the columns that it needs."""
    for name in exports:
        if name not in EXPORTS:
            choices = "; ".join(f"{known} ({export.description})" for known, export in EXPORTS.items())
            raise UserMistake(f"unknown export {name!r}{did_you_mean(name, EXPORTS)} (there are: {choices})")
        needs = EXPORTS[name].needs
        if needs and not needs.intersection(columns):
            others = " or ".join(other for other, export in EXPORTS.items() if not export.needs)
            raise UserMistake(
                f"Export {name} is refused: it needs one of {', '.join(sorted(needs))}, and this model rates "
                f"{', '.join(columns)}. Write `--export {others}`, or rate with a model that has one of them."
            )


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
    versions = sorted((export.name, export.version) for export in wanted(given.exports, given.stop_after))
    return digest_of_bytes(
        given.converted.digest.encode(),
        to_json((attributes, scores, decisions, versions, given.stop_after)),
    )


def _is_current(given: ToExport, exported: Exported, home: Home) -> bool:
    """Whether the output folder holds these very files."""
    return given.folder.holds(exported.files)


def wanted(exports: Sequence[str], stop_after: Literal["convert", "score"] | None) -> tuple[Export, ...]:
    """The exports that a run writes, each once. One that stops early writes none of those it names."""
    if stop_after == "convert":
        return (CONVERTED,)
    return () if stop_after else tuple(EXPORTS[name] for name in dict.fromkeys(exports))


def build(given: ToExport, context: RunContext) -> Exported:
    """Every result file but ``manifest.json``, made in ``staging``."""
    if given.scored is None and given.stop_after != "convert":
        raise TypeError("build needs scores unless the run stops after convert")
    if any(given.staging.iterdir()):  # An attempt before this one failed.
        shutil.rmtree(given.staging)
        given.staging.mkdir(mode=FOLDER)
    return write_results(
        given.converted,
        given.scored,
        given.filtered,
        wanted(given.exports, given.stop_after),
        home=context.home,
        staging=given.staging,
    )


#: Files that are not in this folder are no loss: another run may have put them into another.
EXPORT = Stage("export", 5, Exported, _key, _is_current, build, says_when_stale=False)
