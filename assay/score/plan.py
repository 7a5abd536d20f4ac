"""The written plan: which turns are scored, by way of which records, in which shards.

A plan is written before anything is scored and kept. It depends on the records and on what the store
lacked, on no worker count and no clock; a run that finds one for its records finishes that one first,
so that every batch is made of the same conversations as in a run that was never disturbed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from assay.core.digests import digest_of_bytes, digest_of_file
from assay.rewards.spec import ModelSpec
from assay.score.store import KEY, ScoreStore
from assay.storage.disk import damage_named, read_artifact
from assay.storage.home import Home, sweep, written_whole
from assay.storage.manifests import Converted
from assay.storage.private import make_private
from assay.storage.sealed import Altered, decoded, is_as_sealed, sealed_json
from assay.storage.stage import RunContext

PLAN_VERSION = 1
_A_PLAN = "plan"

#: UTF-8 bytes that make one token, for sizing shards; the exact count is the worker's to find.
BYTES_PER_TOKEN = 4

#: Smaller shards are cut from runs of so many estimated tokens, which are ordered first. A shard that is as
#: large holds the records in the order of the input.
REACH_TOKENS = 1 << 18

#: Records that begin alike stay together up to so many shards.
_KEPT_SHARDS = 4

#: Turns looked up in the store at a time.
_LOOKUP_TURNS = 1 << 20

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
    """A plan on disk. ``path`` is a Parquet file, a row a turn to be scored, ordered by shard, row, turn.

    ``record_tokens``: estimated tokens of the record through its last planned turn.
    """

    path: Path

    def turns(self) -> pl.DataFrame:
        """Every planned turn: shard, piece, row, turn, key, record_tokens."""
        with damage_named(self.path):
            return pl.read_parquet(self.path, glob=False)


class TurnGroup(NamedTuple):
    """The turns of consecutive pieces, looked up together."""

    pieces: range
    turns: pl.DataFrame
    """piece, row, turn, key, text_bytes"""


def grouped_turns(converted: Converted, home: Home) -> Iterator[TurnGroup]:
    """Yield all turns in order, in groups of whole pieces that hold about a million at most."""
    group: list[pl.DataFrame] = []
    first, height = 0, 0
    for number, piece in enumerate(converted.pieces):
        if group and height + piece.turn_count > _LOOKUP_TURNS:
            yield TurnGroup(range(first, number), pl.concat(group))
            group, first, height = [], number, 0
        columns = read_artifact(piece.turns, home, ["row", "turn", KEY, "text_bytes"])
        group.append(columns.insert_column(0, pl.lit(number, pl.UInt32).alias("piece")))
        height += piece.turn_count
    if group:
        yield TurnGroup(range(first, len(converted.pieces)), pl.concat(group))


def unstored(converted: Converted, store: ScoreStore, home: Home) -> pl.DataFrame:
    """The turns that would be scored, each distinct one once, at the record that supplies it.

    Columns piece, row, turn, key, record_tokens; ordered by piece, row, turn. Among the records of a
    group that hold a turn, the one with the most turns still missing supplies it: a conversation that
    grew is read once, in its longest form.
    """
    frames: list[pl.DataFrame] = []
    planned = pl.Series(KEY, [], pl.Binary)
    for _, turns in grouped_turns(converted, home):
        stored = store.look_up(turns[KEY].unique())
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
    """The turns with their shard, each closed once it holds ``shard_tokens``, estimated.

    A shard may go on from one piece into the next, or ten thousand small files would be as many shards.
    ``beginnings`` (one per record) are equal where records begin alike; None ignores how they begin.
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
    """The shard of each record; ``tokens`` and ``beginnings`` are one a record, in input order.

    Scoring is cheap where answers to one prompt share its pass, and where a pass holds texts of one length.
    Small shards, cut in the order of the input, would spoil both. So a run of ``REACH_TOKENS`` is taken, its
    records that begin alike are put together, the longest first, and shards are cut from that. Records that
    begin alike can be many (with a "Hi", say): beyond ``_KEPT_SHARDS`` shards they are parted.
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
    """Whether shards of that size are cut from runs of several."""
    return shard_tokens * 2 <= REACH_TOKENS


def _ordered(
    run: Sequence[int], tokens: Sequence[int], beginnings: Sequence[bytes | None] | None, shard_tokens: int
) -> list[list[int]]:
    """The records of a run in groups that are to stay together, and within them, the longest first."""
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
    """A key for each record of ``turns``, in their order; equal where records begin alike.

    It is that of the first exchange, or of the prompt where there is one answer.
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
    """The plan that an earlier run wrote for these records and this model, if it is intact.

    A line names one that is not.
    """
    folder = _folder(converted, model, context.home)
    members = folder / "members.parquet"
    try:
        content = decoded((folder / "plan.json").read_bytes())
        if not is_as_sealed(content, about=_A_PLAN):
            raise Altered("its digest is not that of its content")
        expected = (PLAN_VERSION, converted.digest, model.fingerprint, digest_of_file(members))
        if tuple(content.get(name) for name in ("version", "records", "fingerprint", "members")) != expected:
            raise Altered("it is not of these records and this model")
    except FileNotFoundError:
        return None
    except Altered as error:
        context.say(
            f"{folder}: the plan of an earlier run is damaged, or another's ({error}). What is not scored "
            "yet is planned anew, so last digits of scores can differ"
        )
        return None
    return Plan(members)


def write(
    turns: pl.DataFrame, converted: Converted, model: ModelSpec, home: Home, *, shard_tokens: int
) -> Plan:
    """The new plan, on disk; it replaces whatever plan there was for these records."""
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
