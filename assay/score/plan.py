"""The plan on disk: which turns to score, which record supplies each, and how they are cut into shards.

A shard is a group of turns that is scored and stored together. A run writes its plan before it scores
anything, and keeps it. The plan depends on the records and on what the store lacked, and not on the number of
workers or on the time. A run that finds a plan for its records finishes that plan first. So its batches hold
the same conversations as those of a run that nothing interrupted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from assay.core.digests import digest_of_bytes, digest_of_file
from assay.rewards.spec import ModelSpec
from assay.score.store import KEY, ScoreStore
from assay.storage.artifacts import read_artifact
from assay.storage.buckets import BUCKET_ROWS, Buckets, Distinct, Parts
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
_GROUP = "group"
_BEGINNING = "beginning"


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan on disk. ``path`` is a Parquet file with a row for each turn to score, ordered by shard.

    ``record_tokens``: estimated tokens of the record up to and including its last planned turn.
    """

    path: Path

    def parts(self) -> Iterator[pl.DataFrame]:
        """Yield every planned turn, some at a time: shard, piece, row, turn, key, record_tokens."""
        with damage_named(self.path):
            height = int(pl.scan_parquet(self.path, glob=False).select(pl.len()).collect().item())
        for first in range(0, height, LOOKUP_TURNS):
            with damage_named(self.path):
                part = pl.scan_parquet(self.path, glob=False).slice(first, LOOKUP_TURNS).collect()
            yield part


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


@dataclass(frozen=True, slots=True)
class MissingTurns:
    """The turns that have no score, each distinct one once, with the record that supplies it."""

    parts: Parts
    """Columns piece, row, turn, key, text_bytes, record_tokens; ordered by piece, row, turn."""
    turns: int = 0
    records: int = 0
    record_tokens: int = 0
    """Of these records, up to and including the last missing turn, estimated."""
    turn_tokens: int = 0
    """Of these turns, each with all that precedes it, estimated."""


def unstored(
    converted: Converted, store: ScoreStore, home: Home, folder: Path, *, given_up: Collection[bytes] = ()
) -> MissingTurns:
    """The turns that the store lacks, without those whose keys are ``given_up``. They wait in the ``folder``.

    Turns are looked up group by group. Several records of a group may hold the same turn; the one with the
    most missing turns supplies it. So the model reads a conversation that grew once, in its longest form. A
    turn that an earlier group holds too is that group's.
    """
    groups = list(groups_of_pieces(converted.pieces, most_turns=LOOKUP_TURNS))
    lacking = Buckets(folder, "lacking", len(groups))
    for number, group in enumerate(groups):
        turns = turns_of(converted.pieces[group.start : group.stop], group.start, home)
        missing = turns.join(store.stored(turns[KEY].unique()), on=KEY, how="anti")
        if not missing.is_empty():
            lacking.add(missing, pl.lit(number))
    earlier = _of_earlier_groups(lacking, folder)
    found = MissingTurns(Parts(folder, "missing"))
    for number in range(lacking.count):
        rows, again = lacking.rows(number), earlier.rows(number)
        lacking.drop(number)
        if rows is None:
            continue
        if again is not None:
            rows = rows.join(again, on=KEY, how="anti")
        chosen = _chosen(rows)
        if given_up:
            chosen = chosen.filter(~pl.col(KEY).is_in(list(given_up)))
        if not chosen.is_empty():
            found = _with(found, chosen)
    return found


def _of_earlier_groups(lacking: Buckets, folder: Path) -> Buckets:
    """By group, the keys in there that an earlier group has too."""
    rows = sum(lacking.heights)
    by_key = Buckets(folder, "keys", rows // BUCKET_ROWS + 1)
    earlier = Buckets(folder, "earlier", lacking.count)
    if lacking.count == 1:
        return earlier
    for number in range(lacking.count):
        turns = lacking.rows(number)
        if turns is not None:
            keys = turns.select(pl.col(KEY).unique(), pl.lit(number, pl.UInt32).alias(_GROUP))
            by_key.add(keys, pl.col(KEY).hash() % by_key.count)
    for number in range(by_key.count):
        keys_of_bucket = by_key.rows(number)
        by_key.drop(number)
        if keys_of_bucket is not None:
            again = keys_of_bucket.filter(pl.col(_GROUP) > pl.col(_GROUP).min().over(KEY))
            earlier.add(again.select(KEY), again[_GROUP])
    return earlier


def _chosen(missing: pl.DataFrame) -> pl.DataFrame:
    """Each distinct turn of a group once, with the record that supplies it."""
    return (
        missing.with_columns(pl.len().over("piece", "row").alias("breadth"))
        .sort(["breadth", "piece", "row", "turn"], descending=[True, False, False, False])
        .unique(KEY, keep="first", maintain_order=True)
        .sort("piece", "row", "turn")
        .with_columns(
            (pl.col("text_bytes").max().over("piece", "row") // BYTES_PER_TOKEN + 1)
            .cast(pl.UInt32)
            .alias("record_tokens")
        )
        .select("piece", "row", "turn", KEY, "text_bytes", "record_tokens")
    )


def _with(found: MissingTurns, chosen: pl.DataFrame) -> MissingTurns:
    """All that is found with these turns, which are of other records."""
    found.parts.add(chosen)
    records = chosen.unique(["piece", "row"], keep="first")
    return MissingTurns(
        found.parts,
        found.turns + chosen.height,
        found.records + records.height,
        found.record_tokens + int(records["record_tokens"].sum()),
        found.turn_tokens + int((chosen["text_bytes"] // BYTES_PER_TOKEN + 1).sum()),
    )


def distinct_turns(converted: Converted, home: Home, folder: Path) -> int:
    """How many different turns there are."""
    keys = Distinct(folder, sum(piece.turn_count for piece in converted.pieces))
    for group in groups_of_pieces(converted.pieces, most_turns=LOOKUP_TURNS):
        keys.add(turns_of(converted.pieces[group.start : group.stop], group.start, home)[KEY])
    return keys.count()


def in_shards(parts: Iterable[pl.DataFrame], *, shard_tokens: int) -> Iterator[pl.DataFrame]:
    """Yield the turns with the number of their shard, some at a time, in the order of the shards.

    A shard is full once it holds ``shard_tokens`` (estimated). It may hold turns of several pieces; otherwise
    ten thousand small files would make ten thousand shards. Turns that have a column ``beginning`` keep
    together where their records begin alike. A record is in one part, whole.
    """
    waiting, first_shard = None, 0
    for part in parts:
        turns = part if waiting is None else pl.concat([waiting, part])
        records = _records_of(turns)
        *closed, last = _runs(range(records.height), records["record_tokens"].to_list(), _reach(shard_tokens))
        height = int(records["turns"].head(records.height - len(last)).sum())
        waiting = turns.slice(height)
        if closed:
            numbered = _numbered(turns.head(height), shard_tokens, first_shard)
            first_shard = int(numbered["shard"][-1]) + 1
            yield numbered
    if waiting is not None:
        yield _numbered(waiting, shard_tokens, first_shard)


def _records_of(turns: pl.DataFrame) -> pl.DataFrame:
    """The records of the turns, in order, each with its tokens and its number of turns."""
    begun = [pl.col(name).first() for name in ("record_tokens", _BEGINNING) if name in turns.columns]
    return turns.group_by("piece", "row", maintain_order=True).agg(*begun, pl.len().alias("turns"))


def _numbered(turns: pl.DataFrame, shard_tokens: int, first_shard: int) -> pl.DataFrame:
    records = _records_of(turns)
    beginnings = records[_BEGINNING].to_list() if _BEGINNING in records.columns else None
    shards = shard_numbers(records["record_tokens"].to_list(), beginnings, shard_tokens)
    numbered = records.select("piece", "row", (pl.Series("shard", shards, pl.UInt32) + first_shard))
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
    number = -1
    for run in _runs(range(len(tokens)), tokens, _reach(shard_tokens)):
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


def _reach(shard_tokens: int) -> int:
    """Tokens of a run: whole shards."""
    return shard_tokens * max(1, REACH_TOKENS // shard_tokens)


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


def _with_beginnings(turns: pl.DataFrame, converted: Converted, home: Home) -> pl.DataFrame:
    """The turns with a column ``beginning``, which is equal where records begin alike.

    It is the key of the record's first turn, or of its prompt where it has one turn only.
    """
    frames = []
    for (number,), planned in turns.group_by("piece", maintain_order=True):
        piece = converted.pieces[int(str(number))]
        prompts = read_artifact(piece.records, home, ["row", "prompt_key"])
        first = (
            read_artifact(piece.turns, home, ["row", KEY])
            .group_by("row", maintain_order=True)
            .agg(pl.col(KEY).first().alias("first_key"), pl.len().alias("turns"))
        )
        begun = pl.when(pl.col("turns") > 1).then("first_key").otherwise("prompt_key").alias(_BEGINNING)
        frames.append(
            planned.join(prompts, on="row", how="left", maintain_order="left")
            .join(first, on="row", how="left", maintain_order="left")
            .select(*turns.columns, begun)
        )
    return pl.concat(frames)


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
    missing: Iterable[pl.DataFrame],
    converted: Converted,
    model: ModelSpec,
    home: Home,
    waiting: Path,
    *,
    shard_tokens: int,
) -> Plan:
    """A new plan, written to disk. It replaces any earlier plan for these records and this model.

    ``missing``: as ``MissingTurns.parts``. Parts of the plan wait in the folder ``waiting``.
    """
    folder = _folder(converted, model, home)
    make_private(folder)
    members = folder / "members.parquet"
    sweep(folder)
    (folder / "plan.json").unlink(missing_ok=True)
    if _orders(shard_tokens):
        missing = (_with_beginnings(part, converted, home) for part in missing)
    parts = Parts(waiting, "planned")
    for part in in_shards(missing, shard_tokens=shard_tokens):
        parts.add(part)
    with written_whole(members) as temporary:
        parts.scan().sink_parquet(temporary, maintain_order=True, row_group_size=1 << 14)
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
