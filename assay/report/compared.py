"""What changed since an earlier run: which records came and went, what became of the others, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from assay.export.additions import DECISIONS
from assay.report.measures import read
from assay.storage.manifests import reason_code
from assay.storage.run_manifest import RUN_MANIFEST, NoManifest, RunManifest, read_run_manifest
from assay.storage.sealed import Altered

#: Why a record's outcome is another one.
RULE, MODEL, DATA, OTHER = "another rule", "another model", "other data", "other settings or version"
#: Options of a run that choose among records that have scores.
_CHOOSE = ("keep", "on_fail", "group", "target", "by", "per", "quota", "dedup", "near", "decontaminate")
_RULE_PREFIX = "rule: "
_PLACES_SHOWN = 5
_UNKNOWN_FILE = 2**32 - 1
_OUTCOMES = ("kept", "dropped", "quarantined")
_PLACE = ["file", "line", "part"]
#: So many records of each run are held beside each other at once.
_RECORDS_AT_ONCE = 250_000


@dataclass(frozen=True, slots=True)
class Moved:
    """Records whose outcome is another one than before."""

    outcome: str
    """``kept``, ``dropped`` or ``quarantined``: what they are now."""
    records: int
    by_cause: tuple[tuple[str, int], ...]
    """How many for each cause, the most frequent first."""
    places: tuple[tuple[str, int, str], ...]
    """File, line and reason of the first ones: why they are out now, or were."""


@dataclass(frozen=True, slots=True)
class Since:
    """This run beside the one before. ``why_not`` says why they could not be compared, and all else is 0."""

    where: str
    why_not: str | None = None
    is_the_same: bool = False
    """Whether no record's outcome differs."""
    new: int = 0
    """Records at places that the run before did not have."""
    gone: int = 0
    kept_before: int = 0
    kept_now: int = 0
    moved: tuple[Moved, ...] = ()
    changes: tuple[str, ...] = ()
    """What is different of rules, model and inputs: sentences without a full stop."""


def since(before: Path, after: Path, manifest: RunManifest, *, where: str) -> Since:
    """The run in the folder ``before`` beside this one, whose ``decisions.parquet`` is in ``after``.

    A record is named by its file, line and part. ``where`` is how a person would name the folder.
    """
    try:
        earlier = read_run_manifest(before / RUN_MANIFEST)
    except (NoManifest, Altered, OSError) as error:
        return Since(where, why_not=f"its {RUN_MANIFEST} cannot be used ({error})")
    if not (before / DECISIONS).is_file():
        return Since(where, why_not=f"it holds no {DECISIONS}")
    names = sorted({file.path for run in (earlier, manifest) for file in run.inputs})
    found = _Changed()
    try:
        for changed in _changed_rows(before / DECISIONS, after / DECISIONS, names):
            found.add(changed)
    except pl.exceptions.PolarsError as error:
        return Since(where, why_not=f"its {DECISIONS} cannot be read ({str(error).splitlines()[0]})")
    moved = tuple(_moved(outcome, found, earlier, manifest, names) for outcome in _OUTCOMES)
    return Since(
        where=where,
        is_the_same=not (found.new or found.gone or any(one.records for one in moved)),
        new=found.new,
        gone=found.gone,
        kept_before=earlier.rows.kept,
        kept_now=manifest.rows.kept,
        moved=tuple(one for one in moved if one.records),
        changes=tuple(_changes(earlier, manifest)),
    )


def _changed_rows(before: Path, after: Path, names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Yield a row for each record that is not alike in both runs, outcomes and reasons side by side.

    The records of some lines at a time: both tables as a whole may not fit into memory.
    """
    # Numbers instead of names: a million names as keys of a join take much memory.
    numbers = {name: number for number, name in enumerate(names)}
    file = pl.col("file").replace_strict(numbers, default=_UNKNOWN_FILE, return_dtype=pl.UInt32)
    of_before, of_after = (
        pl.scan_parquet(path, glob=False).select(file, "line", "part", "outcome", "reason")
        for path in (before, after)
    )
    of_before = of_before.rename({"outcome": "outcome_before", "reason": "reason_before"})
    rows = max(int(read(one.select(pl.len())).item()) for one in (of_before, of_after))
    parts = max(1, math.ceil(rows / _RECORDS_AT_ONCE))
    for part in range(parts):
        some = (pl.col("line") + pl.col("file")) % parts == part
        joined = of_after.filter(some).join(of_before.filter(some), on=_PLACE, how="full", coalesce=True)
        yield read(joined.filter(pl.col("outcome").eq_missing(pl.col("outcome_before")).not_()))


class _Changed:
    """What records became, counted, with the first of them."""

    def __init__(self) -> None:
        self.new = 0
        self.gone = 0
        self._counts: list[pl.DataFrame] = []
        self._first: list[pl.DataFrame] = []

    def add(self, changed: pl.DataFrame) -> None:
        """Take in the records of some lines."""
        self.new += changed["outcome_before"].null_count()
        self.gone += changed["outcome"].null_count()
        differ = changed.drop_nulls(["outcome", "outcome_before"]).sort(_PLACE)
        self._first.append(differ.group_by("outcome", maintain_order=True).head(_PLACES_SHOWN))
        reasons = [_counted_as("reason"), _counted_as("reason_before")]
        self._counts.append(differ.group_by("outcome", "file", *reasons).len())

    def counts(self, outcome: str) -> pl.DataFrame:
        """How many records came to have this outcome: by file, and by what counts of their reasons."""
        return pl.concat(self._counts).filter(pl.col("outcome") == outcome)

    def first(self, outcome: str) -> pl.DataFrame:
        """The first of them."""
        few = pl.concat(self._first, how="diagonal").filter(pl.col("outcome") == outcome)
        return few.sort(_PLACE).head(_PLACES_SHOWN)


def _counted_as(reason: str) -> pl.Expr:
    """The reason if it is a rule's, else its code: details may differ in each record."""
    is_rule = pl.col(reason).str.starts_with(_RULE_PREFIX)
    return pl.when(is_rule).then(reason).otherwise(pl.col(reason).str.split(":").list.first()).alias(reason)


def _moved(
    outcome: str, changed: _Changed, before: RunManifest, now: RunManifest, names: Sequence[str]
) -> Moved:
    """What came to have this outcome, and by what cause."""
    out_of = "reason_before" if outcome == "kept" else "reason"
    causes: dict[str, int] = {}
    changed_files = _changed_files(before, now)
    counts = changed.counts(outcome)
    for file, reason, number in counts.select("file", out_of, "len").iter_rows():
        name = names[file] if file < len(names) else ""
        cause = _cause(reason or "", outcome, before, now, is_changed=name in changed_files)
        causes[cause] = causes.get(cause, 0) + number
    return Moved(
        outcome,
        int(counts["len"].sum()),
        tuple(sorted(causes.items(), key=lambda item: (-item[1], item[0]))),
        tuple(
            (names[file] if file < len(names) else "", line, reason or "")
            for file, line, reason in changed.first(outcome).select("file", "line", out_of).iter_rows()
        ),
    )


def _cause(reason: str, outcome: str, before: RunManifest, now: RunManifest, *, is_changed: bool) -> str:
    """Why a record's outcome changed. ``reason``: why it is out now; of one that is kept now, why it was out.

    A rule that both runs have drops other records only where their scores are others.
    """
    there_too = before if outcome != "kept" else now
    is_rule = reason.startswith(_RULE_PREFIX)
    if is_rule and reason.removeprefix(_RULE_PREFIX) not in there_too.options.get("keep", []):
        return RULE
    if not is_rule and outcome != "quarantined" and _chooses(before) != _chooses(now):
        is_fault = reason_code(reason) in {**before.quarantined, **now.quarantined}
        if not is_fault:
            return RULE
    if _fingerprints(before) != _fingerprints(now):
        return MODEL
    return DATA if is_changed else OTHER


def _chooses(run: RunManifest) -> list[object]:
    return [run.options.get(name) for name in _CHOOSE]


def _fingerprints(run: RunManifest) -> dict[str, str]:
    models = run.models or ({run.model.name: run.model} if run.model else {})
    return {name: model.fingerprint for name, model in models.items()}


def _changed_files(before: RunManifest, now: RunManifest) -> set[str]:
    """Files of both runs whose contents differ."""
    digests = {file.path: file.digest for file in before.inputs}
    return {file.path for file in now.inputs if digests.get(file.path, file.digest) != file.digest}


def _changes(before: RunManifest, now: RunManifest) -> list[str]:
    changes = []
    rules_before, rules_now = before.options.get("keep", []), now.options.get("keep", [])
    if rules_before != rules_now:
        changes.append(f"rules: {_listed(rules_before)} → {_listed(rules_now)}")
    for name in _CHOOSE[1:]:
        one, other = before.options.get(name), now.options.get(name)
        if one != other:
            changes.append(f"{name}: {_listed(one)} → {_listed(other)}")
    models_before, models_now = _fingerprints(before), _fingerprints(now)
    if models_before != models_now:
        named = list(models_before), list(models_now)
        changes.append(
            f"model: {_listed(named[0])} → {_listed(named[1])}"
            if named[0] != named[1]
            else f"model: {_listed(named[0])} is read in another way, or holds other weights"
        )
    files_before, files_now = ({file.path for file in run.inputs} for run in (before, now))
    counts: Mapping[str, int] = {
        "new": len(files_now - files_before),
        "gone": len(files_before - files_now),
        "changed": len(_changed_files(before, now)),
    }
    if any(counts.values()):
        changes.append(
            "input files: " + ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
        )
    if before.assay != now.assay:
        changes.append(f"Assay: {before.assay} → {now.assay}")
    return changes


def _listed(value: object) -> str:
    if value in (None, [], ""):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
