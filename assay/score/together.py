"""The scores of several models side by side, as if one model had given them.

Each model is planned, scored and stored by itself; what is made here is one file a piece that holds all their
columns, each behind the name that the run gives the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from assay.core.digests import digest_of_bytes
from assay.core.errors import AssayError
from assay.rewards.named import prefixed
from assay.score.store import REASON, TOKENS, TOKENS_CUT
from assay.storage.artifacts import are_intact, artifacts_of, read_artifact
from assay.storage.disk import full_disk_named
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored, ScoredPiece, reason_code
from assay.storage.stage import RunContext, Stage

_TURN = ("row", "turn")


@dataclass(frozen=True, slots=True)
class ToPutTogether:
    """The scores of each model, by what the run calls it."""

    converted: Converted
    scored: Mapping[str, Scored]


def _key(given: ToPutTogether) -> str:
    return digest_of_bytes(
        given.converted.digest.encode(),
        *(
            part.encode()
            for alias, scored in given.scored.items()
            for part in (
                alias,
                scored.fingerprint,
                *scored.attributes,
                *(piece.scores.digest for piece in scored.pieces),
            )
        ),
    )


def _is_current(given: ToPutTogether, made: Scored, home: Home) -> bool:
    """Whether its files are there and unaltered."""
    return are_intact((piece.scores for piece in made.pieces), home)


def put_together(given: ToPutTogether, context: RunContext) -> Scored:
    """One file of scores for every piece, written among the artifacts.

    A turn that one of the models gave no score has that model's reason, and the others' scores. Its
    ``tokens_cut`` is the most that any of them cut. AssayError where the scores are not of one set of turns.
    """
    home = context.home
    folder, files = f"score/{TOGETHER.digest(given)}", artifacts_of(home)
    failed: Counter[str] = Counter()
    pieces: list[ScoredPiece] = []
    with full_disk_named(files.place_of(folder)):
        files.begin(folder)
        for number in range(len(given.converted.pieces)):
            frame = _side_by_side(number, given.scored, home)
            failed.update(reason_code(reason) for reason in frame[REASON].drop_nulls())
            path = f"{folder}/piece-{number:05}.parquet"
            pieces.append(ScoredPiece(files.keep_table(frame, path, compression_level=3)))
    first = next(iter(given.scored.values()))
    return Scored(
        fingerprint=_key(given),
        attributes=tuple(
            prefixed(alias, name) for alias, scored in given.scored.items() for name in scored.attributes
        ),
        pieces=tuple(pieces),
        turns=first.turns,
        distinct_turns=first.distinct_turns,
        failed=dict(sorted(failed.items())),
        segments=(),
        warnings={
            prefixed(alias, name): count
            for alias, scored in given.scored.items()
            for name, count in scored.warnings.items()
        },
    )


def _side_by_side(number: int, models: Mapping[str, Scored], home: Home) -> pl.DataFrame:
    """The turns of the piece of that number, with the columns of all models."""
    frames: dict[str, pl.DataFrame] = {}
    columns: list[pl.Series] = []
    for alias, scored in models.items():
        own = [*scored.attributes, TOKENS, *scored.warnings]
        file = scored.pieces[number].scores
        frame = frames[alias] = read_artifact(file, home, [*_TURN, *own, REASON, TOKENS_CUT])
        if not frame.select(_TURN).equals(next(iter(frames.values())).select(_TURN)):
            place = artifacts_of(home).place_of(file.path)
            raise AssayError(
                f"{place}: these scores are not of the turns that the other models rated. "
                "Remove it and run again: it is made anew."
            )
        columns += [frame[name].alias(prefixed(alias, name)) for name in own]
    turns = next(iter(frames.values())).select(_TURN)
    reasons = pl.DataFrame([_named(alias, frame[REASON]) for alias, frame in frames.items()])
    cuts = pl.DataFrame([frame[TOKENS_CUT].alias(alias) for alias, frame in frames.items()])
    return turns.hstack(
        [
            *columns,
            reasons.select(pl.coalesce(reasons.columns).alias(REASON)).to_series(),
            cuts.select(pl.max_horizontal(cuts.columns).alias(TOKENS_CUT)).to_series(),
        ]
    )


def _named(alias: str, reasons: pl.Series) -> pl.Series:
    """The reasons with the model's name behind their code: ``too_long: judge: 5000 tokens``."""
    parts = reasons.to_frame("reason").select(pl.col("reason").str.splitn(":", 2))["reason"].struct
    detail = parts.field("field_1").str.strip_chars()
    frame = pl.DataFrame({"code": parts.field("field_0"), "detail": detail})
    return frame.select(
        pl.when(pl.col("detail").is_null() | (pl.col("detail") == ""))
        .then(pl.format("{}: {}", "code", pl.lit(alias)))
        .otherwise(pl.format("{}: {}: {}", "code", pl.lit(alias), "detail"))
        .alias(alias)
    ).to_series()


TOGETHER = Stage("together", 1, Scored, _key, _is_current, put_together)
