"""Manifests: what a stage hands to the next. They hold counts, paths and digests, never rows.

Every record is in exactly one piece, in input order. The pieces one after the other are the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from assay.storage.conversations import FieldKind, merged_kinds
from assay.storage.home import Artifact

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file, as the inventory found it."""

    path: str
    """The path as the user gave it, so relative where that was."""
    digest: str
    """BLAKE2b-128 of the file's bytes on disk, before decompression."""
    size: int
    """Bytes on disk."""
    format: str
    """A key of ``formats.FORMATS``."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of records by outcome; ``read`` is their sum."""

    ok: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """By reason code: the part of a reason before its first colon. For a rule, by the rule's whole text."""
    quarantined: dict[str, int] = field(default_factory=dict)

    @property
    def read(self) -> int:
        """All records."""
        return self.ok + sum(self.dropped.values()) + sum(self.quarantined.values())

    @classmethod
    def tallied(cls, counted: Iterable[tuple[str, str | None, int]]) -> Counts:
        """The sum of (outcome, reason, number) entries; the reason is None for an ok record."""
        ok = 0
        by_outcome: dict[str, Counter[str]] = {"dropped": Counter(), "quarantined": Counter()}
        for outcome, reason, count in counted:
            if reason is None:
                ok += count
            else:
                by_outcome[outcome][reason] += count
        return cls(ok, *(dict(sorted(reasons.items())) for reasons in by_outcome.values()))

    def tallies(self) -> Iterator[tuple[str, str | None, int]]:
        """Yield the counts as the entries that ``tallied`` takes."""
        yield "ok", None, self.ok
        for outcome, reasons in (("dropped", self.dropped), ("quarantined", self.quarantined)):
            for reason, count in reasons.items():
                yield outcome, reason, count


@dataclass(frozen=True, slots=True)
class ConvertedPiece:
    """A bounded number of consecutive records of one input file.

    ``records`` is a Parquet file with one row per record, in input order:

    ========== ======== =======================================================================
    row        UInt32   0, 1, 2, … within the piece
    line       UInt64   from 1: the input line, array element, or Parquet row that it comes from
    part       UInt32   its number among the line's records, from 0
    offset     UInt64   decompressed byte at which the line begins
    length     UInt64   bytes of the line, without its line end
    outcome    String   ``ok``, ``dropped`` or ``quarantined``
    reason     String   null where ok; ``code`` or ``code: detail``
    messages   String   JSON array of ``{"role", "content", …}``; null where quarantined
    labels     String   JSON array, one entry per message: the input's label, or null; null if none
    prompt_key Binary   128-bit hash of everything before the last turn; null unless ok
    rest       String   the row's other keys as one JSON object, untouched; null if none
    roles      String   each role's first letter, and ``c`` for an assistant's call of tools: ``suaua``,
                        ``ucta``; null if none
    nemo_prompt String  NeMo-Aligner's text of all between the system message and the last, if it is split
    tools      String   JSON array: the tools that the assistant could call; null if none
    shown      String   the messages as a model is shown them; null where these are ``messages``
    ========== ======== =======================================================================

    ``turns`` is a Parquet file with one row per turn of an ``ok`` record, ordered by (row, turn):
    ``row`` UInt32, ``turn`` UInt32 (0 is the first), ``key`` Binary (16 bytes), ``text_bytes`` UInt32
    (UTF-8 bytes of all texts through the turn), ``prompt_key`` Binary (16 bytes: a hash of the tools and the
    messages before the turn), ``given`` String (what people gave the turn, a JSON object of numbers, each
    under ``given.NAME``; null if nothing).
    """

    file: str
    records: Artifact
    turns: Artifact
    counts: Counts
    turn_count: int
    given: tuple[str, ...] = ()
    """What people gave its turns: ``given.NAME``, sorted."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Fields of the input that neither messages nor ``rest`` hold: by name, of how many ok records."""
    reasoning_turns: int = 0
    """How many of the turns hold reasoning."""
    fields: dict[str, FieldKind] = field(default_factory=dict)
    """What the messages hold beside role and content, by name."""
    with_tools: int = 0
    """How many records have tools."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """An input that is cut short or damaged."""

    file: str
    why: str
    """``is cut short: the gzip data end in the middle``."""
    quarantined: int
    """How many records are in quarantine for this reason."""

    def __str__(self) -> str:
        """A sentence without a full stop."""
        records = "1 record of it is" if self.quarantined == 1 else f"{self.quarantined:,} records of it are"
        return f"{self.file} {self.why}; {records} in quarantine"


@dataclass(frozen=True, slots=True)
class Converted:
    """The convert stage's manifest."""

    inputs: tuple[InputFile, ...]
    pieces: tuple[ConvertedPiece, ...]
    counts: Counts
    lines: int
    """Input lines (array elements, Parquet rows) that were read, blank ones included."""
    complete: bool
    """False where an input is cut short or damaged."""
    digest: str
    """A digest of everything else here. Equal digests mean equal records."""
    shortfalls: tuple[Shortfall, ...] = ()
    """The inputs that are cut short or damaged, and why."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Fields of the input that neither messages nor ``rest`` hold: by name, of how many ok records."""

    @property
    def given(self) -> tuple[str, ...]:
        """What people gave the turns: ``given.NAME``, sorted."""
        return tuple(sorted({name for piece in self.pieces for name in piece.given}))

    @property
    def fields(self) -> dict[str, FieldKind]:
        """What the messages hold beside role and content, by name, sorted."""
        return merged_kinds(*(piece.fields for piece in self.pieces))

    @property
    def with_tools(self) -> int:
        """How many records have tools."""
        return sum(piece.with_tools for piece in self.pieces)

    @property
    def reasoning_turns(self) -> int:
        """How many turns hold reasoning."""
        return sum(piece.reasoning_turns for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class ScoredPiece:
    """The scores of one converted piece.

    ``scores`` is a Parquet file with the rows of the piece's ``turns``, in their order: ``row`` UInt32,
    ``turn`` UInt32, one Float32 column per attribute (null where there is no score), ``reason`` String
    (null where there is a score), ``tokens_cut`` UInt32 (tokens left out at the beginning, which the user
    must allow), ``tokens`` UInt32 (of the turn and all before it; null where they were not counted), and
    one Boolean column for each of ``Scored.warnings``.
    """

    scores: Artifact


@dataclass(frozen=True, slots=True)
class Scored:
    """The score stage's manifest. Piece by piece it matches ``Converted.pieces``."""

    fingerprint: str
    attributes: tuple[str, ...]
    pieces: tuple[ScoredPiece, ...]
    turns: int
    """All turns of ok records."""
    distinct_turns: int
    failed: dict[str, int]
    """Turns without a score, by reason code."""
    segments: tuple[str, ...]
    """Digests of the store's segments that the scores come from."""
    warnings: dict[str, int] = field(default_factory=dict)
    """How many conversations each warning of the model's card applies to, by name (``card_warnings``)."""


@dataclass(frozen=True, slots=True)
class FilteredPiece:
    """The decisions on the records of one converted piece.

    ``decisions`` is a Parquet file with one row per record: ``row`` UInt32, ``outcome`` String (``kept``,
    ``dropped``, ``quarantined``), ``reason`` String (null where kept).
    """

    decisions: Artifact
    turns: Artifact | None = None
    """Where a failing turn does not cost its record: a Parquet file with the rows of the piece's ``turns``,
    in their order: ``row`` UInt32, ``turn`` UInt32, ``outcome`` String (that of the record, or ``cut`` or
    ``masked`` for a turn of a record that is kept), ``reason`` String (null where kept)."""
    order: Artifact | None = None
    """Where the run names what orders answers: a Parquet file with a row a turn of each scored record, in
    their order: ``row`` UInt32, ``turn`` UInt32, ``by`` Float32 of scores, else Float64 (null where it has no
    value)."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """The filter stage's manifest. Piece by piece it matches ``Converted.pieces``; ``ok`` means kept."""

    pieces: tuple[FilteredPiece, ...]
    counts: Counts
    notes: tuple[str, ...] = ()
    """What a person should know of the rules: sentences without a full stop."""
    turns: dict[str, int] = field(default_factory=dict)
    """How many turns of kept records are ``cut`` or ``masked``."""


def to_json(manifest: object) -> bytes:
    """The manifest as one line of JSON. Equal manifests give equal bytes."""
    return msgspec.json.encode(manifest, order="deterministic")


def reason_code(reason: str) -> str:
    """The code that a reason is counted under: the part before its first colon."""
    return reason.partition(":")[0]
