"""The decision on every record: kept, or dropped or quarantined with a reason.

The first of these that applies decides: convert's outcome, if it is not ok; a turn without a score
(quarantined); a rule that does not hold for the last turn (dropped). Rules apply only where every turn has
its scores, so a missing score neither passes nor fails a rule. A run that stops before scoring looks at no
turn. What an export can hold changes no decision.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import polars as pl

from assay.core.digests import digest_of_bytes
from assay.core.errors import InputFault, UserMistake
from assay.select.judge import CUT, MASKED, Verdicts, judged, records_decided
from assay.select.rules import Rules
from assay.select.selection import Selection
from assay.storage.artifacts import are_intact, artifacts_of, read_artifact
from assay.storage.disk import full_disk_named
from assay.storage.home import Artifact, Home
from assay.storage.manifests import Converted, Counts, Filtered, FilteredPiece, Scored, reason_code
from assay.storage.stage import RunContext, Stage

_RULE = "rule"


def counted_as(reason: str) -> str:
    """The key of ``Counts`` that a reason is counted under: its code, or for a rule the whole reason.

    There are few rules, and all records that one rule drops have the same reason. So the rule itself can
    stand beside the number.
    """
    code = reason_code(reason)
    return reason if code == _RULE else code


@dataclass(frozen=True, slots=True)
class ToDecide:
    """The input of the filter stage."""

    converted: Converted
    scored: Scored | None
    """None for a run that stops before scoring; then there are no rules."""
    rules: Rules
    selection: Selection = field(default_factory=Selection)
    """How records are chosen, besides by rules."""


def _key(given: ToDecide) -> str:
    """A digest of all that the decisions depend on. It has the rules' spelling too, which reasons quote."""
    converted, scored, rules = given.converted, given.scored, given.rules
    return digest_of_bytes(
        converted.digest.encode(),
        scored.fingerprint.encode() if scored else b"",
        "\n".join(scored.attributes if scored else ()).encode(),
        "\n".join(piece.scores.digest for piece in (scored.pieces if scored else ())).encode(),
        "\n".join(rules.canonical).encode(),
        "\n".join(rules.texts).encode(),
        *(part.encode() for part in given.selection.depends_on()),
    )


def _is_current(given: ToDecide, filtered: Filtered, home: Home) -> bool:
    """Whether all files of decisions are there and unaltered."""
    files = (file for piece in filtered.pieces for file in (piece.decisions, piece.turns, piece.order))
    return are_intact((file for file in files if file is not None), home)


def decide(given: ToDecide, context: RunContext) -> Filtered:
    """Write one decision per record among the artifacts, one piece in memory at a time.

    Where a failing turn does not cost its record, also one per turn. UserMistake where nothing is kept and a
    rule names a field that no record has: it is misspelled, or the data are others than were meant.
    """
    if given.scored is None and given.rules.rules:
        raise TypeError("there are rules but no scores")
    folder = f"filter/{DECIDE.digest(given)}"
    files = artifacts_of(context.home)
    written = _Written(folder, context)
    context.progress.begin("filter", given.converted.counts.read, "records")
    notes: tuple[str, ...] = ()
    with full_disk_named(files.place_of(folder)):
        files.begin(folder)
        if given.scored is None:
            for piece in given.converted.pieces:
                records = read_artifact(piece.records, context.home, ["row", "outcome", "reason"])
                written.add(Verdicts(records_decided(records), None))
        else:
            with judged(given.converted, given.scored, given.rules, given.selection, context) as found:
                for verdicts in found.verdicts:
                    written.add(verdicts)
                if not written.kept and (absent := found.absent()):
                    raise UserMistake(f"nothing is kept: {absent[0]}")
                notes = found.notes()
    for note in notes:
        context.say(f"note: {note}")
    return Filtered(tuple(written.pieces), Counts.tallied(written.tallies), notes, dict(written.turns))


class _Written:
    """The files of decisions, and what they come to."""

    def __init__(self, folder: str, context: RunContext) -> None:
        self._folder = folder
        self._artifacts = artifacts_of(context.home)
        self._progress = context.progress
        self.pieces: list[FilteredPiece] = []
        self.tallies: list[tuple[str, str | None, int]] = []
        self.kept = 0
        self.turns: Counter[str] = Counter()
        """Turns of kept records that were cut or masked."""

    def add(self, verdicts: Verdicts) -> None:
        """Write the decisions on the next piece."""
        number = len(self.pieces)
        decisions = self._file(verdicts.records, f"decisions-{number:06d}.parquet")
        turns = None
        if verdicts.turns is not None:
            turns = self._file(verdicts.turns, f"turns-{number:06d}.parquet")
            changed = verdicts.turns["outcome"].value_counts()
            self.turns.update({name: n for name, n in changed.iter_rows() if name in (CUT, MASKED)})
        order = None
        if verdicts.order is not None:
            order = self._file(verdicts.order, f"order-{number:06d}.parquet")
        self.pieces.append(FilteredPiece(decisions, turns, order))
        self._progress.advance(verdicts.records.height)
        self.kept += int((verdicts.records["outcome"] == "kept").sum())
        self.tallies += (
            (outcome, reason and counted_as(reason), count)
            for outcome, reason, count in verdicts.records.group_by("outcome", "reason").len().iter_rows()
        )

    def _file(self, frame: pl.DataFrame, name: str) -> Artifact:
        return self._artifacts.keep_table(frame, f"{self._folder}/{name}")


def refuse_quarantine(converted: Converted, filtered: Filtered, home: Home) -> None:
    """Raise InputFault that names the first quarantined record, if there is one."""
    if not filtered.counts.quarantined:
        return
    for piece, decided in zip(converted.pieces, filtered.pieces, strict=True):
        decisions = read_artifact(decided.decisions, home, ["row", "outcome", "reason"])
        bad = decisions.filter(pl.col("outcome") == "quarantined").head(1)
        if bad.height:
            places = read_artifact(piece.records, home, ["row", "line"])
            line, reason = bad.join(places, on="row").select("line", "reason").row(0)
            raise InputFault(f"{piece.file}:{line}: {reason}")


DECIDE = Stage("filter", 4, Filtered, _key, _is_current, decide)
