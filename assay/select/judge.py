"""What becomes of each record, and of each turn: rules first, then the budget.

The first of these that applies decides on a record: convert's outcome, if it is not ok; a turn without a
score (quarantined); a rule that does not hold (dropped); the budget (dropped). A rule that a missing value
leaves open does not hold.

With ``drop`` a rule is about the record, and a turn's value is the last turn's. With ``truncate`` and
``mask`` a rule that names a turn's value is asked at every turn; one that names none is about the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import compress
from typing import NamedTuple

import polars as pl

from assay.core.errors import UserMistake
from assay.select.after_rules import AfterRules, finite, needed
from assay.select.budget import PIECE
from assay.select.expressions import NamedColumn, Value, parts, varies_by_turn
from assay.select.frames import Dataset, Frames, ToMeasure
from assay.select.kinds import OnFail
from assay.select.measure import beside_turns, measured, named_in
from assay.select.rules import Rule, Rules
from assay.select.selection import Selection
from assay.select.tally import RuleTally, Tally, held
from assay.storage.artifacts import read_artifact
from assay.storage.manifests import Converted, Scored
from assay.storage.scratch import own_folder
from assay.storage.stage import RunContext

#: Reason code for a record without any turn.
NO_TURN = "no_turn"
#: Outcomes of turns of records that are kept.
CUT, MASKED = "cut", "masked"


class Verdicts(NamedTuple):
    """What became of a piece."""

    records: pl.DataFrame
    """``row``, ``outcome`` and ``reason`` of every record."""
    turns: pl.DataFrame | None
    """As ``FilteredPiece.turns`` has them; None where a record is kept whole or not at all."""
    order: pl.DataFrame | None = None
    """As ``FilteredPiece.order`` has it; None where the run names no order."""


class Judged(NamedTuple):
    """The verdicts, and what a person should know of them."""

    verdicts: Iterator[Verdicts]
    """Of each piece, in order. To be gone through once."""
    notes: Callable[[], tuple[str, ...]]
    """Sentences without a full stop, once the verdicts are gone through."""

    tallies: Callable[[], tuple[RuleTally, ...]]
    """What each rule came to, once the verdicts are gone through; rules of records first."""
    absent: Callable[[], tuple[str, ...]]
    """A sentence for each rule that holds of nothing and names a field or label that no record has, once they
    are gone through."""


@contextmanager
def judged(
    converted: Converted, scored: Scored, rules: Rules, selection: Selection, context: RunContext
) -> Iterator[Judged]:
    """Yield the verdicts on all pieces. The workers of ``context`` may compute columns.

    AssayError where a file is damaged, UserMistake where no record has the number that is to order them.
    """
    expressions = (*(rule.predicate for rule in rules.rules), *needed(selection))
    by_turn = selection.on_fail != "drop"
    wanted = ToMeasure(
        expressions,
        selection.group,
        by_turn,
        with_answers=selection.looks_at_what_is_left,
        tokenizers=selection.tokenizers,
    )
    by_rules = _ByRules(rules, selection.on_fail)
    home = context.home
    with ExitStack() as stack:
        found = stack.enter_context(measured(Dataset(converted, scored, wanted, home), context))

        def notes() -> tuple[str, ...]:
            return (*found.notes(), *by_rules.notes())

        def absent() -> tuple[str, ...]:
            sentences = found.absent()
            return tuple(
                f"`{tally.rule.text}` holds of none, and {sentences[part]}"
                for tally in by_rules.tallies()
                if tally.asked and tally.fails == tally.asked
                for part in parts(tally.rule.predicate)
                if isinstance(part, NamedColumn) and part in sentences
            )

        def pieces() -> Iterator[tuple[Frames, Verdicts]]:
            records_scored = records_ordered = 0
            for piece, frames in zip(converted.pieces, found.frames, strict=True):
                records_scored += frames.records.height
                records_ordered += frames.records.select(finite(selection.by).count()).item()
                records = read_artifact(piece.records, home, ["row", "outcome", "reason"])
                verdicts = by_rules.verdicts(records, frames)
                yield frames, verdicts._replace(order=_ordered(frames, selection.order))
            if selection.by is not None and records_scored and not records_ordered:
                raise UserMistake(
                    f"--by {selection.by}: no record of {records_scored:,} has a number there, so nothing can"
                    " be ordered by it. Name another field, or a score."
                )

        if not selection.looks_at_what_is_left:
            yield Judged((verdicts for _, verdicts in pieces()), notes, by_rules.tallies, absent)
            return
        place = home.artifacts / "filter"
        place.mkdir(parents=True, exist_ok=True)
        after = AfterRules(selection, converted, home, stack.enter_context(own_folder(place)))
        # Verdicts are narrow: a number, two words and a reason a record.
        waiting: list[Verdicts] = []
        for number, (frames, verdicts) in enumerate(pieces()):
            waiting.append(verdicts)
            kept = verdicts.records.filter(pl.col("outcome") == "kept").select("row")
            after.add(number, kept, frames)
        settled = after.settle()
        dropped = settled.dropped.partition_by(PIECE, as_dict=True, include_key=False)
        yield Judged(
            (_without(verdicts, dropped.get((number,))) for number, verdicts in enumerate(waiting)),
            lambda: (*notes(), *settled.notes),
            by_rules.tallies,
            absent,
        )


def _without(verdicts: Verdicts, dropped: pl.DataFrame | None) -> Verdicts:
    """The verdicts, with records dropped that were kept."""
    if dropped is None:
        return verdicts
    reasons = dropped.rename({"reason": "why"})
    is_dropped = pl.col("why").is_not_null()

    def decided(frame: pl.DataFrame) -> pl.DataFrame:
        return (
            frame.join(reasons, on="row", how="left", maintain_order="left")
            .with_columns(
                pl.when(is_dropped).then(pl.lit("dropped")).otherwise("outcome").alias("outcome"),
                pl.when(is_dropped).then("why").otherwise("reason").alias("reason"),
            )
            .drop("why")
        )

    turns = None if verdicts.turns is None else decided(verdicts.turns)
    return verdicts._replace(records=decided(verdicts.records), turns=turns)


def _ordered(frames: Frames, by: Value | None) -> pl.DataFrame | None:
    """What orders the turns: each turn's value, or its record's."""
    if by is None:
        return None
    # A score stays the float32 that it is, so that its digits are those that files show.
    number = pl.col(by.measured).cast(pl.Float32 if by.is_float32 else pl.Float64)
    return beside_turns(frames, [by.measured]).select(
        "row", "turn", pl.when(number.is_finite()).then(number).alias("by")
    )


class _ByRules:
    """The verdicts of the rules, and how many records or turns each of them drops."""

    def __init__(self, rules: Rules, on_fail: OnFail) -> None:
        self._on_fail = on_fail
        by_turn = [on_fail != "drop" and varies_by_turn(rule.predicate) for rule in rules.rules]
        self._of_turns = list(compress(rules.rules, by_turn))
        self._of_records = [rule for rule, asked in zip(rules.rules, by_turn, strict=True) if not asked]
        self._named = list(
            dict.fromkeys(name for rule in self._of_turns for name in named_in(rule.predicate))
        )
        self._tallies = (Tally(self._of_records, "records"), Tally(self._of_turns, "turns"))

    def notes(self) -> tuple[str, ...]:
        """What to say of rules that keep nothing or everything."""
        return tuple(note for tally in self._tallies for note in tally.notes())

    def tallies(self) -> tuple[RuleTally, ...]:
        """What each rule came to."""
        return tuple(rule for tally in self._tallies for rule in tally.rules)

    def verdicts(self, records: pl.DataFrame, frames: Frames) -> Verdicts:
        """The verdicts on a piece; ``records`` has convert's outcomes."""
        of_record = self._broken(self._tallies[0], self._of_records, frames.records)
        broken = frames.records.select("row").with_columns(of_record.alias("broken"))
        if self._on_fail == "drop":
            return Verdicts(records_decided(records, frames.unscored, broken), None)
        turns = beside_turns(frames, self._named)
        turns = turns.select("row", "turn").with_columns(
            self._broken(self._tallies[1], self._of_turns, turns).alias("why")
        )
        fails = pl.col("why").is_not_null()
        by_record = turns.group_by("row", maintain_order=True).agg(
            pl.col("why").drop_nulls().first().alias("first_why"),
            pl.col("turn").filter(fails).first().alias("first_failing"),
            fails.all().alias("all_fail"),
        )
        # Nothing is left to learn from: the record goes, for the reason of its first turn that fails.
        spoiled = pl.col("all_fail") if self._on_fail == "mask" else pl.col("first_failing") == 0
        broken = broken.join(by_record, on="row", how="left", maintain_order="left").with_columns(
            pl.coalesce("broken", pl.when(spoiled).then("first_why")).alias("broken")
        )
        decided = records_decided(records, frames.unscored, broken.select("row", "broken"))
        return Verdicts(decided, _turns_decided(turns, broken, decided, self._on_fail))

    def _broken(self, tally: Tally, rules: Sequence[Rule], frame: pl.DataFrame) -> pl.Series:
        """The reason of the first rule that does not hold, for each row; null where all hold."""
        if not rules:
            return pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
        answers = held(rules, frame)
        tally.add(frame, answers)
        reasons = [
            pl.when(~pl.col(name)).then(pl.lit(rule.reason))
            for name, rule in zip(answers.columns, rules, strict=True)
        ]
        return answers.select(pl.coalesce(reasons)).to_series()


def _turns_decided(
    turns: pl.DataFrame, broken: pl.DataFrame, decided: pl.DataFrame, on_fail: OnFail
) -> pl.DataFrame:
    """A row a turn of scored records; of those that are kept, what becomes of the turn."""
    beside = turns.join(broken.select("row", "first_failing"), on="row", how="left", maintain_order="left")
    beside = beside.join(decided, on="row", how="left", maintain_order="left")
    kept = pl.col("outcome") == "kept"
    if on_fail == "mask":
        changed, name, why = pl.col("why").is_not_null(), MASKED, pl.col("why")
    else:
        changed, name = pl.col("turn") >= pl.col("first_failing"), CUT
        why = pl.col("why").filter(pl.col("turn") == pl.col("first_failing")).first().over("row")
    changed = changed.fill_null(False)
    return beside.select(
        "row",
        "turn",
        pl.when(kept & changed).then(pl.lit(name)).otherwise("outcome").alias("outcome"),
        pl.when(kept & changed).then(why).otherwise("reason").alias("reason"),
    )


def records_decided(
    records: pl.DataFrame, unscored: pl.DataFrame | None = None, broken: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The ``row``, ``outcome`` and ``reason`` of every record of a piece.

    ``records`` has convert's outcomes. ``unscored`` has the ``reason`` of a record with a turn without a
    score, ``broken`` has every scored record, and the rule that it breaks or null. Without ``broken``, as of
    a run that stops before it scores, every record counts as scored.
    """
    ok = pl.col("outcome") == "ok"
    if broken is None or unscored is None:
        return records.select(
            "row", pl.when(ok).then(pl.lit("kept")).otherwise("outcome").alias("outcome"), "reason"
        )
    has_turn = pl.concat([broken.select("row"), unscored.select("row")]).with_columns(
        pl.lit(True).alias("has_turn")
    )
    for found in (unscored.rename({"reason": "unscored"}), broken, has_turn):
        records = records.join(found, on="row", how="left", maintain_order="left")
    fault = pl.coalesce(
        "unscored",
        pl.when(pl.col("has_turn").is_null()).then(pl.lit(f"{NO_TURN}: no assistant message to rate")),
    )
    return records.select(
        "row",
        pl.when(~ok)
        .then("outcome")
        .when(fault.is_not_null())
        .then(pl.lit("quarantined"))
        .when(pl.col("broken").is_not_null())
        .then(pl.lit("dropped"))
        .otherwise(pl.lit("kept"))
        .alias("outcome"),
        pl.when(~ok).then("reason").otherwise(pl.coalesce(fault, "broken")).alias("reason"),
    )
