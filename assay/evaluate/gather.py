"""Converted records → a benchmark's items, and the turns that a model has to rate for them.

A record's other turns are left out, so that a service is asked for no score that no figure needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import NamedTuple

import msgspec
import polars as pl

from assay.core.calls import Json
from assay.core.digests import digest_of_bytes
from assay.core.errors import UserMistake
from assay.core.schema import GIVEN, turn_keys, turn_positions
from assay.evaluate.answers import in_canonical_order
from assay.evaluate.benchmarks import BENCHMARKS, names, recognised
from assay.evaluate.items import AskedItem, Line, Record, RefusedLine, Turn
from assay.storage.artifacts import are_intact, artifacts_of, read_artifact
from assay.storage.conversations import conversation_of
from assay.storage.disk import full_disk_named
from assay.storage.home import Artifact, Home
from assay.storage.manifests import Converted, ConvertedPiece, reason_code, to_json
from assay.storage.stage import RunContext, Stage

VERSION = 1

_COLUMNS = [
    *("row", "line", "part", "offset", "length", "outcome", "reason"),
    *("messages", "shown", "tools", "prompt_key", "rest"),
]
_REFUSED = {
    "file": pl.String,
    "line": pl.UInt64,
    "part": pl.UInt32,
    "offset": pl.UInt64,
    "length": pl.UInt64,
    "reason": pl.String,
}
_DECODE_REST = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DECODE_VALUE = msgspec.json.Decoder().decode
_DECODE_ITEMS = msgspec.msgpack.Decoder(list[AskedItem]).decode
#: A longer field is a text that no benchmark counts by.
_LONGEST_FIELD = 1000


@dataclass(frozen=True, slots=True)
class BenchmarkRows:
    """Rows of the inputs by what became of them. A row is an input line."""

    read: int
    """The sum of the other three."""
    used: int
    dropped: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class ToGather:
    """The input of the gather stage."""

    converted: Converted
    benchmark: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """The gather stage's manifest."""

    items: Artifact
    """MessagePack of the items, in an order that is not that of the rows."""
    refused: Artifact
    """Parquet: file, line, part, offset, length, reason of every record of a quarantined row."""
    asked: Converted
    """The converted records with those turns alone that an item has."""
    rows: BenchmarkRows
    dropped: dict[str, int] = field(default_factory=dict)
    """Dropped rows by reason code."""
    quarantined: dict[str, int] = field(default_factory=dict)
    looks_like: dict[str, int] = field(default_factory=dict)
    """How many rows look like another benchmark's."""


class _Placed(NamedTuple):
    """A converted record, where it is from, and its row's other fields."""

    file: str
    line: int
    record: Record
    rest: Mapping[str, Json]


def lines_of(converted: Converted, home: Home) -> Iterator[Line]:
    """Yield every input line with its records, in input order."""
    records = chain.from_iterable(
        _records(number, piece, home) for number, piece in enumerate(converted.pieces)
    )
    for (file, line), together in groupby(records, key=lambda one: (one.file, one.line)):
        found = list(together)
        rest = next((one.rest for one in found if one.record.outcome == "ok"), {})
        yield Line(file, line, tuple(one.record for one in found), rest)


def _records(number: int, piece: ConvertedPiece, home: Home) -> Iterator[_Placed]:
    given: dict[tuple[int, int], str] = {}
    keys: dict[int, list[bytes]] = {}
    for row, turn, key, text in read_artifact(piece.turns, home, ["row", "turn", "key", "given"]).iter_rows():
        keys.setdefault(row, []).append(key)
        if text is not None:
            given[row, turn] = text
    for one in read_artifact(piece.records, home, _COLUMNS).iter_rows(named=True):
        row = one["row"]
        rest = _fields(one["rest"])
        side = rest.get("assay_side")
        turns, opening = _turns(one, keys.get(row, []), given) if one["outcome"] == "ok" else ((), b"")
        record = Record(
            piece=number,
            row=row,
            line=one["line"],
            part=one["part"],
            offset=one["offset"],
            length=one["length"],
            outcome=one["outcome"],
            reason=one["reason"],
            turns=turns,
            opening=opening,
            side=side if isinstance(side, str) else None,
        )
        yield _Placed(piece.file, one["line"], record, rest)


def _fields(rest: str | None) -> dict[str, Json]:
    """The row's other fields that are short: a count, a label, a name."""
    if rest is None:
        return {}
    return {
        name: _DECODE_VALUE(value)
        for name, value in _DECODE_REST(rest.encode()).items()
        if len(bytes(value)) <= _LONGEST_FIELD
    }


def _turns(
    record: Mapping[str, object], keys: Sequence[bytes], given: Mapping[tuple[int, int], str]
) -> tuple[tuple[Turn, ...], bytes]:
    """The record's last turn and those that people gave something; a hash of what is before the first."""
    row, prompt = record["row"], record["prompt_key"]
    assert isinstance(row, int)
    assert isinstance(prompt, bytes)
    messages = conversation_of(str(record["shown"] or record["messages"]))
    positions = turn_positions(messages)
    last = len(keys) - 1
    wanted = [turn for turn in range(last) if (row, turn) in given]
    prompts = {last: prompt}
    if last:
        tools = record["tools"]
        # Without what follows the last turn that is wanted, hashing a conversation costs little.
        through = positions[wanted[-1] if wanted else 0] + 1
        found = turn_keys(messages[:through], tools if isinstance(tools, str) else None)
        prompts |= {turn: one.prompt_key for turn, one in enumerate(found)}
    turns = tuple(
        Turn(
            turn,
            keys[turn],
            prompts[turn],
            len(messages[positions[turn]].content),
            _numbers(given.get((row, turn))),
        )
        for turn in [*wanted, last]
    )
    return turns, prompts[0]


def _numbers(text: str | None) -> dict[str, float]:
    if text is None:
        return {}
    found: dict[str, float] = msgspec.json.decode(text, type=dict[str, float])
    return {name.removeprefix(GIVEN): value for name, value in found.items()}


def gather(given: ToGather, context: RunContext) -> Gathered:
    """The items of the benchmark, and the turns that they ask for.

    UserMistake where no row is this benchmark's and the rows look like another's.
    """
    benchmark, home = BENCHMARKS[given.benchmark], context.home
    folder, files = f"gather/{GATHER.digest(given)}", artifacts_of(home)
    context.progress.begin("gather", given.converted.counts.read, "records")
    looks_like: Counter[str] = Counter()
    read = 0

    def counted(lines: Iterable[Line]) -> Iterator[Line]:
        nonlocal read
        for line in lines:
            read += 1
            context.progress.advance(len(line.records))
            if line.problem is None and (name := recognised(line)) is not None:
                looks_like[name] += 1
            yield line

    items: list[AskedItem] = []
    refused: list[RefusedLine] = []
    for one in benchmark.gather(counted(lines_of(given.converted, home))):
        if isinstance(one, AskedItem):
            items.append(in_canonical_order(one))
        else:
            refused.append(one)
    looks_like.pop(benchmark.name, None)
    if not items and looks_like:
        name = max(looks_like, key=lambda one: looks_like[one])
        raise UserMistake(
            f"--benchmark {benchmark.name}: the rows of {_files(given.converted)} are those of "
            f"{names([name])}. Use --benchmark {name}."
        )
    items, repeated = _without_repeats(sorted(items, key=_order))
    refused += repeated
    files.begin(folder)
    counts = {
        outcome: Counter(reason_code(one.reason) for one in refused if one.outcome == outcome)
        for outcome in ("dropped", "quarantined")
    }
    dropped, quarantined = (sum(counts[outcome].values()) for outcome in ("dropped", "quarantined"))
    with full_disk_named(home.root):
        bad = _table([one for one in refused if one.outcome == "quarantined"])
        return Gathered(
            files.keep(msgspec.msgpack.encode(items), f"{folder}/items.msgpack"),
            files.keep_table(bad, f"{folder}/refused.parquet"),
            _asked(given.converted, items, folder, home),
            BenchmarkRows(read, read - dropped - quarantined, dropped, quarantined),
            dict(sorted(counts["dropped"].items())),
            dict(sorted(counts["quarantined"].items())),
            dict(sorted(looks_like.items())),
        )


def _files(converted: Converted) -> str:
    paths = [file.path for file in converted.inputs]
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _order(item: AskedItem) -> tuple[str, bytes, list[bytes], str, str, int]:
    """An order that does not depend on that of the rows, except among equal ones."""
    return item.group, item.prompt, [one.key for one in item.answers], item.id, item.file, item.line


def _without_repeats(items: Sequence[AskedItem]) -> tuple[list[AskedItem], list[RefusedLine]]:
    """The items without those that another file holds too, such as a part of a whole that is read as well."""
    seen: dict[tuple[str, bytes, tuple[tuple[bytes, float], ...], str], str] = {}
    kept: list[AskedItem] = []
    repeated: list[RefusedLine] = []
    for item in items:
        answers = tuple((one.key, one.worth) for one in item.answers)
        file = seen.setdefault((item.group, item.prompt, answers, item.id), item.file)
        if file == item.file:
            kept.append(item)
        else:
            line = Line(item.file, item.line, (), {})
            repeated.append(RefusedLine(line, f"repeated: the same row is in {file}", "dropped"))
    return kept, repeated


def _table(refused: Sequence[RefusedLine]) -> pl.DataFrame:
    rows = [
        (one.line.file, one.line.number, record.part, record.offset, record.length, one.reason)
        for one in refused
        for record in one.line.records[:1]
    ]
    return pl.DataFrame(rows, schema=_REFUSED, orient="row").sort("file", "line", maintain_order=True)


def _asked(converted: Converted, items: Sequence[AskedItem], folder: str, home: Home) -> Converted:
    """The converted records with the turns of the items alone."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for item in items:
        for answer in item.answers:
            wanted.setdefault(answer.piece, []).append((answer.row, answer.turn))
    pieces = []
    for number, piece in enumerate(converted.pieces):
        chosen = pl.DataFrame(
            wanted.get(number, []), schema={"row": pl.UInt32, "turn": pl.UInt32}, orient="row"
        ).unique()
        turns = read_artifact(piece.turns, home, ["row", "turn", "key", "text_bytes", "given"])
        turns = turns.join(chosen, on=["row", "turn"], how="semi", maintain_order="left")
        path = f"{folder}/{number:05}.turns.parquet"
        kept = artifacts_of(home).keep_table(turns, path, compression_level=1, statistics=False)
        pieces.append(replace(piece, turns=kept, turn_count=turns.height))
    asked = replace(converted, pieces=tuple(pieces), digest="")
    return replace(asked, digest=digest_of_bytes(to_json(asked)))


def items_in(gathered: Gathered, home: Home) -> list[AskedItem]:
    """The items. AssayError where their file is gone or altered."""
    return _DECODE_ITEMS(artifacts_of(home).read(gathered.items))


def _key(given: ToGather) -> str:
    return digest_of_bytes(given.converted.digest.encode(), given.benchmark.encode())


def _is_current(given: ToGather, gathered: Gathered, home: Home) -> bool:
    """Whether all its files are there and unaltered."""
    turns = (piece.turns for piece in gathered.asked.pieces)
    return are_intact([gathered.items, gathered.refused, *turns], home)


GATHER = Stage("gather", VERSION, Gathered, _key, _is_current, gather)
