"""Conversations with scores → files that trainers load, a file a trainer."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from assay.core.digests import digest_of_bytes
from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.export.axolotl import AXOLOTL_KTO, AXOLOTL_PREFERENCE, AXOLOTL_SFT
from assay.export.card import CARD, AboutModel, AboutRun, Features, card
from assay.export.card_languages import languages_kept
from assay.export.contract import Export, ToWrite
from assay.export.every_record import PARQUET
from assay.export.features import OfRun, pair_features, record_features
from assay.export.files import Exported, write_file
from assay.export.folder import OutputFolder
from assay.export.kept import NOTHING, Held, Item
from assay.export.llamafactory import LLAMAFACTORY_KTO, LLAMAFACTORY_PREFERENCE, LLAMAFACTORY_SFT
from assay.export.messages import DROPPED, MESSAGES
from assay.export.nemo_rl import NEMO_RL_PREFERENCE, NEMO_RL_SFT
from assay.export.openai import OPENAI
from assay.export.openrlhf import OPENRLHF_PREFERENCE
from assay.export.pairs import Pair, PairChoice
from assay.export.results import write_results
from assay.export.splits import NEMO_OASST, Split, SplitByGroup
from assay.export.steerlm import CONVERTED, STEERLM, STEERLM_REGRESSION
from assay.export.swift import SWIFT_PREFERENCE, SWIFT_SFT
from assay.export.trl import TRL_KTO, TRL_PREFERENCE, TRL_REWARD, TRL_SFT
from assay.export.verl import VERL_PREFERENCE, VERL_SFT
from assay.rewards.named import plain_names
from assay.rewards.scalar import scalar_among
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered, Scored, to_json
from assay.storage.private import FOLDER
from assay.storage.stage import RunContext, Stage

__all__ = [
    "EXPORT",
    "EXPORTS",
    "PAIR_EXPORTS",
    "RECORD_EXPORTS",
    "AboutModel",
    "AboutRun",
    "Export",
    "Exported",
    "PairChoice",
    "ToExport",
    "build",
    "check_exports",
    "check_split",
    "default_exports",
    "wanted",
]


#: Of records or their turns, by name. One more trainer is a module and a line here.
RECORD_EXPORTS: dict[str, Export[Item]] = {
    export.name: export
    for export in (
        MESSAGES,
        STEERLM,
        STEERLM_REGRESSION,
        TRL_SFT,
        TRL_KTO,
        OPENAI,
        NEMO_RL_SFT,
        LLAMAFACTORY_SFT,
        LLAMAFACTORY_KTO,
        AXOLOTL_SFT,
        AXOLOTL_KTO,
        VERL_SFT,
        SWIFT_SFT,
        PARQUET,
        DROPPED,
    )
}

#: Of pairs, by name.
PAIR_EXPORTS: dict[str, Export[Pair]] = {
    export.name: export
    for export in (
        TRL_PREFERENCE,
        TRL_REWARD,
        NEMO_RL_PREFERENCE,
        LLAMAFACTORY_PREFERENCE,
        AXOLOTL_PREFERENCE,
        OPENRLHF_PREFERENCE,
        VERL_PREFERENCE,
        SWIFT_PREFERENCE,
    )
}

#: All, by name.
EXPORTS: dict[str, Export[Item] | Export[Pair]] = {**RECORD_EXPORTS, **PAIR_EXPORTS}

#: Written unless ``--export`` is given, where the run has what they need. The first always is.
_BY_DEFAULT = (MESSAGES, STEERLM)


def default_exports(columns: Sequence[str]) -> tuple[str, ...]:
    """What is written unless ``--export`` is given, for a model that rates ``columns``.

    >>> default_exports(["reward"]), default_exports(["helpfulness"])
    (('messages',), ('messages', 'steerlm'))
    """
    return tuple(
        export.name for export in _BY_DEFAULT if not (_lacks(export, columns) or _twice(export, columns))
    )


def _lacks(export: Export[Item] | Export[Pair], columns: Sequence[str]) -> bool:
    return bool(export.needs) and export.needs.isdisjoint(plain_names(columns))


def _twice(export: Export[Item] | Export[Pair], columns: Sequence[str]) -> list[str]:
    """Attributes that an export needs and that several models rate: each time their columns."""
    by_name: dict[str, list[str]] = {}
    for column, name in zip(columns, plain_names(columns), strict=True):
        if name in export.needs:
            by_name.setdefault(name, []).append(column)
    return [" and ".join(same) for same in by_name.values() if len(same) > 1]


def check_exports(exports: Sequence[str], columns: Sequence[str], *, are_ordered: bool = False) -> None:
    """Nothing, or UserMistake where an export is unknown, or columns are not those that it needs.

    ``are_ordered``: whether the run names what orders answers.
    """
    for name in exports:
        if name not in EXPORTS:
            choices = "; ".join(f"{known} ({export.description})" for known, export in EXPORTS.items())
            raise UserMistake(f"unknown export {name!r}{did_you_mean(name, EXPORTS)} (there are: {choices})")
        if _lacks(EXPORTS[name], columns):
            raise UserMistake(
                f"Export {name} is refused: it needs one of {', '.join(sorted(EXPORTS[name].needs))}, and "
                f"this model rates {', '.join(columns)}. Write `--export {MESSAGES.name}`, which needs none, "
                "or rate with a model that has one of them."
            )
        if twice := _twice(EXPORTS[name], columns):
            raise UserMistake(
                f"Export {name} is refused: it needs each attribute from one model, and this run has "
                f"{', '.join(twice)}. Leave the export out, or use one of the models."
            )
        if name in PAIR_EXPORTS and not are_ordered and scalar_among(columns) is None:
            raise UserMistake(
                f"Export {name} is refused: it ranks answers by one number, and there are "
                f"{', '.join(columns)}. Choose one, as with `--by {columns[0]}`, or make one number of them, "
                "as with `--weights helpfulness=0.65`."
            )


def check_split(exports: Sequence[str], split: Split | None) -> None:
    """Nothing, or UserMistake where an export cannot be divided so."""
    if split is None or not split.nemo_oasst:
        return
    for name in exports:
        export = RECORD_EXPORTS.get(name)
        if export is not None and export.columns is not None:
            raise UserMistake(
                f"--split {NEMO_OASST}: orders lines, and {name} is a table; leave out the one or the other"
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
    pairs: PairChoice = PairChoice()
    """Which pairs preference exports hold."""
    split: Split | None = None
    """How every file is divided; None: it is not."""
    about: AboutRun | None = None
    """What the card says of the run; without, there is no card."""
    desirable: Filtered | None = None
    """Keeps the records whose answers are good ones, as a rule says; None without a rule."""
    shard_bytes: int | None = None
    """The most bytes of a file, of which there are then several; None: each is one file."""

    @property
    def wanted(self) -> ToWrite:
        """What is written."""
        return wanted(
            self.exports, self.stop_after, self.pairs, self.split, has_rule=self.desirable is not None
        )._replace(shard_bytes=self.shard_bytes)


def _key(given: ToExport) -> str:
    """A digest of all that the result files depend on; where they are written is not among it."""
    scored = given.scored
    scores = [piece.scores.digest for piece in scored.pieces] if scored else None
    decisions = [piece.decisions.digest for piece in given.filtered.pieces]
    for piece in given.filtered.pieces:
        decisions += [file.digest for file in (piece.turns, piece.order) if file is not None]
    attributes = scored.attributes if scored else None
    written = given.wanted
    versions = sorted(
        [
            *((export.name, export.version) for export in written.records),
            *((export.name, export.version) for export in written.pairs),
        ]
    )
    pairs = written.choice if written.pairs else None
    verdicts = None
    if given.desirable is not None:
        found = [file for piece in given.desirable.pieces for file in (piece.decisions, piece.turns)]
        verdicts = [file.digest for file in found if file is not None]
    return digest_of_bytes(
        given.converted.digest.encode(),
        to_json(
            (attributes, scores, decisions, versions, given.stop_after, pairs, written.split, given.about),
        ),
        to_json(verdicts),
        *([] if given.shard_bytes is None else [b"shards %d" % given.shard_bytes]),
    )


def _is_current(given: ToExport, exported: Exported, home: Home) -> bool:
    """Whether the output folder holds these very files."""
    return given.folder.holds(exported.files)


def wanted(
    exports: Sequence[str],
    stop_after: Literal["convert", "score"] | None,
    pairs: PairChoice = PairChoice(),
    split: Split | None = None,
    *,
    has_rule: bool = False,
) -> ToWrite:
    """The exports that a run writes, each once. One that stops early writes none of those it names."""
    if stop_after == "convert":
        return ToWrite((CONVERTED,), split=split)
    if stop_after is not None:
        return ToWrite()
    names = tuple(dict.fromkeys(exports))
    return ToWrite(
        tuple(RECORD_EXPORTS[name] for name in names if name in RECORD_EXPORTS),
        tuple(PAIR_EXPORTS[name] for name in names if name in PAIR_EXPORTS),
        pairs,
        split,
        has_rule,
    )


def build(given: ToExport, context: RunContext) -> Exported:
    """Every result file but ``manifest.json``, made in ``staging``."""
    if given.scored is None and given.stop_after != "convert":
        raise TypeError("build needs scores unless the run stops after convert")
    if any(given.staging.iterdir()):  # An attempt before this one failed.
        shutil.rmtree(given.staging)
        given.staging.mkdir(mode=FOLDER)
    exported = write_results(
        given.converted,
        given.scored,
        given.filtered,
        given.wanted,
        context,
        staging=given.staging,
        desirable=given.desirable,
    )
    if given.about is None or given.scored is None or not exported.exports:
        return exported
    made = card(
        given.about,
        given.converted,
        given.scored,
        given.filtered.counts,
        exported,
        _features(given.converted, given.scored, given.filtered, exported.exports),
        languages_kept(given.converted, given.filtered, context.home) if given.about.finds_languages else (),
        given.split.group if isinstance(given.split, SplitByGroup) else None,
    )
    return replace(exported, files=exported.files | {CARD: write_file(given.staging / CARD, made)})


def _features(
    converted: Converted, scored: Scored, filtered: Filtered, exports: Iterable[str]
) -> dict[str, Features]:
    """The columns of exports of lines, where messages hold more than a role and a content.

    None of those that write tools as what they are: these are of as many types as there are tools.
    """
    run = OfRun(scored.attributes, converted.given, Held.in_records(converted).in_kept(filtered))
    if run.held == NOTHING:
        return {}
    found: dict[str, Features] = {}
    for name in exports:
        if EXPORTS[name].tools_as_a_list:
            continue
        features = (
            record_features(RECORD_EXPORTS[name], run)
            if name in RECORD_EXPORTS
            else pair_features(PAIR_EXPORTS[name], run)
        )
        if features is not None:
            found[name] = features
    return found


#: Files that are not in this folder are no loss: another run may have put them into another.
EXPORT = Stage("export", 9, Exported, _key, _is_current, build, says_when_stale=False)
