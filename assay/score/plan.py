"""The plan on disk: which turns to score, which record supplies each, and how they are cut into shards.

A shard is a group of turns that is scored and stored together. A run writes its plan before it scores
anything, and keeps it. The plan depends on the records and on what the store lacked, and not on the number of
workers or on the time. A run that finds a plan for its records finishes that plan first. So its batches hold
the same conversations as those of a run that nothing interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from assay.core.digests import digest_of_bytes, digest_of_file
from assay.rewards.spec import ModelSpec
from assay.score.store import KEY, ScoreStore
from assay.storage.artifacts import read_artifact
from assay.storage.disk import damage_named
from assay.storage.home import Home, sweep, written_whole
from assay.storage.manifests import Converted, ConvertedPiece
from assay.storage.private import make_private
from assay.storage.sealed import Altered, decoded, is_as_sealed, sealed_json
from assay.storage.stage import RunContext

PLAN_VERSION = 1
_A_PLAN = "plan"

#: UTF-8 bytes that make one token, for sizing shards. Workers find the exact count.
BYTES_PER_TOKEN = 4

#: Small shards are cut from runs of records with about this many estimated tokens, which are sorted first.
#: Shards of more than half this size hold the records in the order of the input.
REACH_TOKENS = 1 << 18

#: Records that begin alike stay together until they fill this many shards.
_KEPT_SHARDS = 4

#: How many turns are looked up in the store at once.
LOOKUP_TURNS = 1 << 20

_SCHEMA = {
    "shard": pl.UInt32,
    "piece": pl.UInt32,
    "row": pl.UInt32,
    "turn": pl.UInt32,
    KEY: pl.Binary,
    "record_tokens": pl.UInt32,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan on disk. ``path`` is a Parquet file with a row for each turn to score, ordered by shard.

    ``record_tokens``: estimated tokens of the record up to and including its last planned turn.
    """

    path: Path

    def turns(self) -> pl.DataFrame:
        """Every planned turn: shard, piece, row, turn, key, record_tokens."""
        with damage_named(self.path):
            return pl.read_parquet(self.path, glob=False)


def groups_of_pieces(pieces: Sequence[ConvertedPiece], *, most_turns: int) -> Iterator[range]:
    """Yield the numbers of all pieces, in groups: each one piece, or so many turns at most.

    >>> from assay.storage.home import Artifact
    >>> from assay.storage.manifests import ConvertedPiece, Counts
    >>> file = Artifact("p", "d", 1)
    >>> pieces = [ConvertedPiece("a.jsonl", file, file, Counts(), turns) for turns in (5, 5, 90, 1)]
    >>> list(groups_of_pieces(pieces, most_turns=10))
    [range(0, 2), range(2, 3), range(3, 4)]
    """
    first, height = 0, 0
    for number, piece in enumerate(pieces):
        if number > first and height + piece.turn_count > most_turns:
            yield range(first, number)
            first, height = number, 0
        height += piece.turn_count
    if pieces:
        yield range(first, len(pieces))


def turns_of(pieces: Sequence[ConvertedPiece], first: int, home: Home) -> pl.DataFrame:
    """The turns of these consecutive pieces, of which the first has this number.

    Columns piece, row, turn, key, text_bytes.
    """
    frames = []
    for number, piece in enumerate(pieces, first):
        columns = read_artifact(piece.turns, home, ["row", "turn", KEY, "text_bytes"])
        frames.append(columns.insert_column(0, pl.lit(number, pl.UInt32).alias("piece")))
    return pl.concat(frames)


def grouped_turns(converted: Converted, home: Home) -> Iterator[pl.DataFrame]:
    """Yield all turns in order, as many at a time as are looked up together: see ``turns_of``."""
    for group in groups_of_pieces(converted.pieces, most_turns=LOOKUP_TURNS):
        yield turns_of(converted.pieces[group.start : group.stop], group.start, home)


def unstored(converted: Converted, store: ScoreStore, home: Home) -> pl.DataFrame:
    """The turns that have no score, each distinct one once, with the record that supplies it.

    Columns piece, row, turn, key, record_tokens; ordered by piece, row, turn. Several records of a group may
    hold the same turn; the one with the most missing turns supplies it. So the model reads a conversation
    that grew once, in its longest form.
    """
    frames: list[pl.DataFrame] = []
    planned = pl.Series(KEY, [], pl.Binary)
    for turns in grouped_turns(converted, home):
        stored = store.stored(turns[KEY].unique())
        missing = turns.join(stored, on=KEY, how="anti").join(planned.to_frame(), on=KEY, how="anti")
        chosen = (
            missing.with_columns(pl.len().over("piece", "row").alias("breadth"))
            .sort(["breadth", "piece", "row", "turn"], descending=[True, False, False, False])
            .unique(KEY, keep="first", maintain_order=True)
            .sort("piece", "row", "turn")
            .with_columns(
                (pl.col("text_bytes").max().over("piece", "row") // BYTES_PER_TOKEN + 1)
                .cast(pl.UInt32)
                .alias("record_tokens")
            )
            .select("piece", "row", "turn", KEY, "record_tokens")
        )
        planned = pl.concat([planned, chosen[KEY]])
        frames.append(chosen)
    return pl.concat(frames) if frames else pl.DataFrame(schema=_SCHEMA).drop("shard")


def in_shards(turns: pl.DataFrame, beginnings: pl.Series | None = None, *, shard_tokens: int) -> pl.DataFrame:
    """The turns with the number of their shard. A shard is full once it holds ``shard_tokens`` (estimated).

    A shard may hold turns of several pieces; otherwise ten thousand small files would make ten thousand
    shards. ``beginnings`` (one per record) are equal where records begin alike; None ignores how they begin.
    """
    records = turns.group_by("piece", "row", maintain_order=True).agg(pl.col("record_tokens").first())
    tokens = records["record_tokens"].to_list()
    shards = shard_numbers(tokens, None if beginnings is None else beginnings.to_list(), shard_tokens)
    numbered = records.select("piece", "row", pl.Series("shard", shards, pl.UInt32))
    return (
        turns.join(numbered, on=["piece", "row"], how="left", maintain_order="left")
        .sort("shard", maintain_order=True)
        .select(*_SCHEMA)
    )


def shard_numbers(
    tokens: Sequence[int], beginnings: Sequence[bytes | None] | None, shard_tokens: int
) -> list[int]:
    """The shard of each record. ``tokens`` and ``beginnings`` have one entry per record, in input order.

    Scoring is cheap where the answers to one prompt share a pass of the model, and where the texts of a pass
    have about the same length. Small shards in input order would prevent both. So records are taken in runs
    of ``REACH_TOKENS``. In each run, records that begin alike are put together, the longest first; then the
    run is cut into shards. Many records can begin alike (with "Hi", say): such a group is split once it fills
    ``_KEPT_SHARDS`` shards.
    """
    numbers = [0] * len(tokens)
    reach = shard_tokens * max(1, REACH_TOKENS // shard_tokens)
    number = -1
    for run in _runs(range(len(tokens)), tokens, reach):
        filled = shard_tokens
        ordered = _orders(shard_tokens)
        for together in _ordered(run, tokens, beginnings, shard_tokens) if ordered else [run]:
            size = sum(tokens[record] for record in together)
            if filled >= shard_tokens or size > shard_tokens:
                number, filled = number + 1, 0
            filled += size
            for record in together:
                numbers[record] = number
    return numbers


def _orders(shard_tokens: int) -> bool:
    """Whether shards of that size are so small that records are sorted before they are cut."""
    return shard_tokens * 2 <= REACH_TOKENS


def _ordered(
    run: Sequence[int], tokens: Sequence[int], beginnings: Sequence[bytes | None] | None, shard_tokens: int
) -> list[list[int]]:
    """The records of a run in groups that stay together; in each group the longest comes first."""
    alike: dict[object, list[int]] = {}
    longest_first = sorted(run, key=lambda record: -tokens[record])
    for record in longest_first:
        beginning = beginnings[record] if beginnings is not None else None
        alike.setdefault(record if beginning is None else beginning, []).append(record)
    groups = [part for group in alike.values() for part in _runs(group, tokens, shard_tokens * _KEPT_SHARDS)]
    return sorted(groups, key=lambda group: -tokens[group[0]])


def _runs(records: Sequence[int], tokens: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield the records in runs, each closed once it holds ``size`` tokens."""
    run: list[int] = []
    filled = 0
    for record in records:
        if filled >= size:
            yield run
            run, filled = [], 0
        run.append(record)
        filled += tokens[record]
    if run:
        yield run


def beginnings(turns: pl.DataFrame, converted: Converted, home: Home) -> pl.Series:
    """A key for each record of ``turns``, in their order. Records that begin alike have equal keys.

    It is the key of the record's first turn, or of its prompt where it has one turn only.
    """
    frames = []
    for (number,), planned in (
        turns.select("piece", "row").unique(maintain_order=True).group_by("piece", maintain_order=True)
    ):
        piece = converted.pieces[int(str(number))]
        prompts = read_artifact(piece.records, home, ["row", "prompt_key"])
        first = (
            read_artifact(piece.turns, home, ["row", KEY])
            .group_by("row", maintain_order=True)
            .agg(pl.col(KEY).first(), pl.len().alias("turns"))
        )
        frames.append(
            planned.join(prompts, on="row", how="left", maintain_order="left")
            .join(first, on="row", how="left", maintain_order="left")
            .select(pl.when(pl.col("turns") > 1).then(KEY).otherwise("prompt_key").alias("beginning"))
        )
    return pl.concat(frames)["beginning"]


def existing(converted: Converted, model: ModelSpec, context: RunContext) -> Plan | None:
    """The plan that an earlier run wrote for these records and this model. None where there is no intact one.

    A damaged plan is reported in a line.
    """
    folder = _folder(converted, model, context.home)
    members = folder / "members.parquet"
    try:
        content = decoded((folder / "plan.json").read_bytes())
        if not is_as_sealed(content, about=_A_PLAN):
            raise Altered("its digest is not that of its content")
        expected = (PLAN_VERSION, converted.digest, model.fingerprint, digest_of_file(members))
        if tuple(content.get(name) for name in ("version", "records", "fingerprint", "members")) != expected:
            raise Altered("it is for other records or another model")
    except FileNotFoundError:
        return None
    except Altered as error:
        context.say(
            f"{folder}: the plan of an earlier run cannot be used ({error}). Turns that have no score yet "
            "are planned anew, so the last digits of their scores can differ"
        )
        return None
    return Plan(members)


def write(
    turns: pl.DataFrame, converted: Converted, model: ModelSpec, home: Home, *, shard_tokens: int
) -> Plan:
    """A new plan, written to disk. It replaces any earlier plan for these records and this model."""
    folder = _folder(converted, model, home)
    make_private(folder)
    members = folder / "members.parquet"
    sweep(folder)
    (folder / "plan.json").unlink(missing_ok=True)
    alike = beginnings(turns, converted, home) if _orders(shard_tokens) else None
    with written_whole(members) as temporary:
        in_shards(turns, alike, shard_tokens=shard_tokens).write_parquet(temporary, row_group_size=1 << 14)
    seal = {
        "version": PLAN_VERSION,
        "members": digest_of_file(members),
        "records": converted.digest,
        "fingerprint": model.fingerprint,
        "shard_tokens": shard_tokens,
    }
    with written_whole(folder / "plan.json") as temporary:
        temporary.write_bytes(sealed_json(seal, about=_A_PLAN))
    return Plan(members)


def _folder(converted: Converted, model: ModelSpec, home: Home) -> Path:
    return home.plans / model.fingerprint / digest_of_bytes(converted.digest.encode())
