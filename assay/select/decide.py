"""The decision on every record: kept, or dropped or quarantined with a reason.

The first of these that applies decides: convert's outcome, if it is not ok; a turn without a score
(quarantined); a rule that does not hold for the last turn (dropped). Rules apply only where every turn has
its scores, so a missing score neither passes nor fails a rule. A run that stops before scoring looks at no
turn. What an export can hold changes no decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from assay.core.digests import digest_of_bytes
from assay.core.errors import AssayError, InputFault
from assay.select.rules import Rules
from assay.storage.disk import full_disk_named, read_artifact
from assay.storage.home import Artifact, Home, sweep, written_whole
from assay.storage.manifests import (
    Converted,
    ConvertedPiece,
    Counts,
    Filtered,
    FilteredPiece,
    Scored,
    reason_code,
)
from assay.storage.stage import RunContext, Stage

#: Reason code for a score that is NaN or infinite and has no reason of its own.
NOT_A_NUMBER = "not_a_number"
#: Reason code for a score that is missing and has no reason of its own.
NO_SCORE = "no_score"
#: Reason code for a record without any turn.
NO_TURN = "no_turn"

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
    )


def _is_current(given: ToDecide, filtered: Filtered, home: Home) -> bool:
    """Whether all files of decisions are there and unaltered."""
    return all(piece.decisions.is_intact(home) for piece in filtered.pieces)


def decide(given: ToDecide, context: RunContext) -> Filtered:
    """Write one decision per record below ``home.artifacts/filter``, one piece in memory at a time."""
    converted, scored, rules, home = given.converted, given.scored, given.rules, context.home
    if scored is None and rules.rules:
        raise TypeError("there are rules but no scores")
    folder = home.artifacts / "filter" / DECIDE.digest(given)
    tallies: list[tuple[str, str | None, int]] = []
    pieces = []
    with full_disk_named(folder):
        sweep(folder)
        for number, piece in enumerate(converted.pieces):
            records = read_artifact(piece.records, home, ["row", "outcome", "reason"])
            if scored is None:
                judged = _unjudged(records)
            else:
                judged = _judged(records, piece, number, scored, rules, home)
            decisions = _decisions(judged)
            path = folder / f"decisions-{number:06d}.parquet"
            with written_whole(path) as temporary:
                decisions.write_parquet(temporary)
            pieces.append(FilteredPiece(Artifact.of(path, home)))
            tallies += (
                (outcome, reason and counted_as(reason), count)
                for outcome, reason, count in decisions.group_by("outcome", "reason").len().iter_rows()
            )
    return Filtered(tuple(pieces), Counts.tallied(tallies))


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


def _unjudged(records: pl.DataFrame) -> pl.DataFrame:
    """The records with the columns of ``_judged``, as if every turn had its scores."""
    no_reason = pl.lit(None, pl.String)
    return records.with_columns(
        no_reason.alias("unscored"), pl.lit(True).alias("has_turn"), no_reason.alias("broken")
    )


def _judged(
    records: pl.DataFrame,
    piece: ConvertedPiece,
    number: int,
    scored: Scored,
    rules: Rules,
    home: Home,
) -> pl.DataFrame:
    """The records with ``unscored`` and ``broken`` (a reason or null) and ``has_turn`` (true or null)."""
    attributes, scores = scored.attributes, scored.pieces[number].scores
    turns = read_artifact(scores, home, ["row", "turn", *attributes, *scored.warnings, "reason"])
    if turns.height != piece.turn_count:
        raise AssayError(
            f"{home.artifacts / scores.path}: {turns.height} turns where the piece has "
            f"{piece.turn_count}. Remove it and run again: it is made anew."
        )
    unscored = (
        turns.filter(_is_unscored(attributes))
        .unique(subset="row", keep="first", maintain_order=True)
        .select("row", _reason_of_turn(attributes).alias("unscored"))
    )
    last = turns.unique(subset="row", keep="last", maintain_order=True).select(
        "row", pl.lit(True).alias("has_turn"), _first_broken_rule(rules).alias("broken")
    )
    return records.join(unscored, on="row", how="left", maintain_order="left").join(
        last, on="row", how="left", maintain_order="left"
    )


def _decisions(judged: pl.DataFrame) -> pl.DataFrame:
    """The ``row``, ``outcome`` and ``reason`` of every record of a piece."""
    ok = pl.col("outcome") == "ok"
    fault = pl.coalesce(
        "unscored",
        pl.when(pl.col("has_turn").is_null()).then(pl.lit(f"{NO_TURN}: no assistant message to rate")),
    )
    return judged.select(
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


def _is_unscored(attributes: tuple[str, ...]) -> pl.Expr:
    """True for a turn with a reason, or without a finite number for one of the attributes."""
    return pl.any_horizontal(
        [pl.col("reason").is_not_null()]
        + [pl.col(attribute).is_null() | ~pl.col(attribute).is_finite() for attribute in attributes]
    ).fill_null(True)


def _reason_of_turn(attributes: tuple[str, ...]) -> pl.Expr:
    """The turn's reason with the turn's number after its code: ``too_long: turn 2: 5000 tokens``."""
    any_null = pl.any_horizontal([pl.col(attribute).is_null() for attribute in attributes])
    reason = pl.coalesce("reason", pl.when(any_null).then(pl.lit(NO_SCORE)).otherwise(pl.lit(NOT_A_NUMBER)))
    code_and_detail = reason.str.splitn(":", 2)
    detail = code_and_detail.struct.field("field_1").str.strip_chars()
    return pl.concat_str(
        code_and_detail.struct.field("field_0"),
        pl.lit(": turn "),
        pl.col("turn").cast(pl.String),
        pl.when(detail.is_null() | (detail == "")).then(pl.lit("")).otherwise(pl.lit(": ") + detail),
    )


def _first_broken_rule(rules: Rules) -> pl.Expr:
    """The reason of the first rule that does not hold; null where all hold."""
    return pl.coalesce(
        [
            # Null means a turn without scores. Such a turn is quarantined; if not, it must fail the rule.
            pl.when(rule.predicate.expression().fill_null(False)).then(None).otherwise(pl.lit(rule.reason))
            for rule in rules.rules
        ]
        or [pl.lit(None, dtype=pl.String)]
    )


DECIDE = Stage("filter", 2, Filtered, _key, _is_current, decide)
