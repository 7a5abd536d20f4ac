"""Converted and scored pieces built by hand in the layout that ``assay.storage.manifests`` documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import polars as pl

from assay.core.digests import digest_of_bytes, digest_of_file
from assay.core.schema import Conversation, Message, roles_of, turn_keys
from assay.storage.conversations import conversation_json, field_kinds
from assay.storage.home import Artifact, Home
from assay.storage.manifests import (
    Converted,
    ConvertedPiece,
    Counts,
    InputFile,
    Scored,
    ScoredPiece,
    reason_code,
)

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@dataclass(frozen=True)
class Turn:
    """What a model said of one turn: a value an attribute, or a reason."""

    values: tuple[float | None, ...] | None
    reason: str | None = None
    tokens_cut: int = 0
    given: Mapping[str, float] | None = None
    """What people gave it, by name."""


@dataclass(frozen=True)
class Record:
    """One record; ``turns`` run parallel to the assistant messages of an ok one."""

    line: int
    messages: tuple[tuple[str, str] | Message, ...] | None = (("user", "Hi"), ("assistant", "Hello"))
    turns: tuple[Turn, ...] = ()
    part: int = 0
    outcome: str = "ok"
    reason: str | None = None
    offset: int = 0
    length: int = 0
    labels: tuple[str | None, ...] | None = None
    rest: str | None = None
    nemo_prompt: str | None = None
    tools: str | None = None


def spoken(record: Record) -> Conversation:
    """The record's messages."""
    return tuple(one if isinstance(one, Message) else Message(*one) for one in record.messages or ())


@dataclass(frozen=True)
class Made:
    home: Home
    converted: Converted
    scored: Scored
    records: list[tuple[str, Record]] = field(default_factory=list)


def make(
    home: Home,
    files: Mapping[str, Sequence[Sequence[Record]]],
    attributes: Sequence[str] = HELPSTEER,
    *,
    complete: bool = True,
) -> Made:
    """Pieces of files; a file's value is its pieces, a piece its records."""
    pieces: list[ConvertedPiece] = []
    scored_pieces: list[ScoredPiece] = []
    flat: list[tuple[str, Record]] = []
    failed: Counter[str] = Counter()
    keys: set[bytes] = set()
    for file, file_pieces in files.items():
        for records in file_pieces:
            flat += [(file, record) for record in records]
            number = len(pieces)
            pieces.append(_write_piece(home, file, number, records))
            scored_pieces.append(_write_scores(home, number, records, attributes))
            for record in records:
                failed.update(reason_code(turn.reason) for turn in record.turns if turn.reason)
                if record.messages and record.outcome == "ok":
                    keys |= {key.key for key in turn_keys(spoken(record), record.tools)}
    counts = _counts([record for _, record in flat])
    inputs = tuple(_input(file) for file in files)
    converted = Converted(
        inputs,
        tuple(pieces),
        counts,
        lines=len({(file, record.line) for file, record in flat}),
        complete=complete,
        digest=digest_of_bytes(repr([piece.records.digest for piece in pieces]).encode()),
    )
    scored = Scored(
        "f" * 32,
        tuple(attributes),
        tuple(scored_pieces),
        turns=sum(piece.turn_count for piece in pieces),
        distinct_turns=len(keys),
        failed=dict(failed),
        segments=(),
    )
    return Made(home, converted, scored, flat)


def _input(file: str) -> InputFile:
    path = Path(file)
    if path.is_file():
        return InputFile(file, digest_of_file(path), path.stat().st_size, "messages")
    return InputFile(file, "0" * 32, 0, "messages")


def _counts(records: Sequence[Record]) -> Counts:
    def by_code(outcome: str) -> dict[str, int]:
        return dict(Counter(reason_code(r.reason or "") for r in records if r.outcome == outcome))

    return Counts(sum(r.outcome == "ok" for r in records), by_code("dropped"), by_code("quarantined"))


def _write_piece(home: Home, file: str, number: int, records: Sequence[Record]) -> ConvertedPiece:
    frame = pl.DataFrame(
        {
            "row": range(len(records)),
            "line": [r.line for r in records],
            "part": [r.part for r in records],
            "offset": [r.offset for r in records],
            "length": [r.length for r in records],
            "outcome": [r.outcome for r in records],
            "reason": [r.reason for r in records],
            "messages": [
                None if r.messages is None else conversation_json(spoken(r)).decode() for r in records
            ],
            "labels": [None if r.labels is None else msgspec.json.encode(r.labels).decode() for r in records],
            "prompt_key": [_prompt_key(r) for r in records],
            "rest": [r.rest for r in records],
            "roles": [roles_of(spoken(r)) or None for r in records],
            "nemo_prompt": [r.nemo_prompt for r in records],
            "tools": [r.tools for r in records],
            "shown": [None] * len(records),
        },
        schema={
            "row": pl.UInt32,
            "line": pl.UInt64,
            "part": pl.UInt32,
            "offset": pl.UInt64,
            "length": pl.UInt64,
            "outcome": pl.String,
            "reason": pl.String,
            "messages": pl.String,
            "labels": pl.String,
            "prompt_key": pl.Binary,
            "rest": pl.String,
            "roles": pl.String,
            "nemo_prompt": pl.String,
            "tools": pl.String,
            "shown": pl.String,
        },
    )
    turns = [
        (row, turn, key.key, key.text_bytes, key.prompt_key, _given_in(record, turn))
        for row, record in enumerate(records)
        if record.outcome == "ok" and record.messages is not None
        for turn, key in enumerate(turn_keys(spoken(record), record.tools))
    ]
    turn_frame = pl.DataFrame(
        turns,
        schema={
            "row": pl.UInt32,
            "turn": pl.UInt32,
            "key": pl.Binary,
            "text_bytes": pl.UInt32,
            "prompt_key": pl.Binary,
            "given": pl.String,
        },
        orient="row",
    )
    folder = home.artifacts / "convert" / f"handmade-{digest_of_bytes(file.encode(), repr(records).encode())}"
    folder.mkdir(parents=True, exist_ok=True)
    records_path, turns_path = folder / f"records-{number}.parquet", folder / f"turns-{number}.parquet"
    frame.write_parquet(records_path)
    turn_frame.write_parquet(turns_path)
    return ConvertedPiece(
        file,
        Artifact.of(records_path, home),
        Artifact.of(turns_path, home),
        _counts(records),
        len(turns),
        given=tuple(
            sorted({f"given.{name}" for one in records for turn in one.turns for name in turn.given or ()})
        ),
        fields=field_kinds(message for record in records for message in spoken(record)),
        with_tools=sum(record.tools is not None for record in records),
    )


def _given_in(record: Record, turn: int) -> str | None:
    given = record.turns[turn].given if turn < len(record.turns) else None
    if given is None:
        return None
    return msgspec.json.encode({f"given.{name}": number for name, number in given.items()}).decode()


def _prompt_key(record: Record) -> bytes | None:
    """That of the last turn; of one that has none something, so that an ok record has a key."""
    if record.outcome != "ok":
        return None
    keys = turn_keys(spoken(record), record.tools)
    return keys[-1].prompt_key if keys else b"\0" * 16


def _write_scores(
    home: Home, number: int, records: Sequence[Record], attributes: Sequence[str]
) -> ScoredPiece:
    rows = [
        (row, number_of_turn, *(turn.values or (None,) * len(attributes)), turn.reason, turn.tokens_cut, None)
        for row, record in enumerate(records)
        if record.outcome == "ok"
        for number_of_turn, turn in enumerate(record.turns)
    ]
    frame = pl.DataFrame(
        rows,
        schema={
            "row": pl.UInt32,
            "turn": pl.UInt32,
            **dict.fromkeys(attributes, pl.Float32),
            "reason": pl.String,
            "tokens_cut": pl.UInt32,
            "tokens": pl.UInt32,
        },
        orient="row",
    )
    folder = home.artifacts / "score" / "handmade"
    folder.mkdir(parents=True, exist_ok=True)
    # Each model's scores of the same records have a file of their own.
    digest = digest_of_bytes(repr((frame.columns, frame.rows())).encode())
    path = folder / f"scores-{number}-{digest}.parquet"
    frame.write_parquet(path)
    return ScoredPiece(Artifact.of(path, home))
