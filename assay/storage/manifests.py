"""What a stage hands to the next: counts, paths and digests, never rows.

Every record is in exactly one piece, in input order, so that pieces one after the other are the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from assay.storage.home import Artifact

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input as the inventory saw it."""

    path: str
    """As a person would name it: relative where it was given so."""
    digest: str
    """BLAKE2b-128 of the file's own bytes (compressed, where it is compressed)."""
    size: int
    """Bytes on disk."""
    format: str
    """A key of ``formats.FORMATS``."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Records by outcome; ``read`` is their sum."""

    ok: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """By reason code: what stands before the first colon of a reason. A rule has its whole text instead."""
    quarantined: dict[str, int] = field(default_factory=dict)

    @property
    def read(self) -> int:
        """All records."""
        return self.ok + sum(self.dropped.values()) + sum(self.quarantined.values())

    @classmethod
    def tallied(cls, counted: Iterable[tuple[str, str | None, int]]) -> Counts:
        """The counts of (outcome, what it counts under, how many), several of which may be alike."""
        ok = 0
        by_outcome: dict[str, Counter[str]] = {"dropped": Counter(), "quarantined": Counter()}
        for outcome, reason, count in counted:
            if reason is None:
                ok += count
            else:
                by_outcome[outcome][reason] += count
        return cls(ok, *(dict(sorted(reasons.items())) for reasons in by_outcome.values()))

    def tallies(self) -> Iterator[tuple[str, str | None, int]]:
        """Yield what ``tallied`` takes."""
        yield "ok", None, self.ok
        for outcome, reasons in (("dropped", self.dropped), ("quarantined", self.quarantined)):
            for reason, count in reasons.items():
                yield outcome, reason, count


@dataclass(frozen=True, slots=True)
class ConvertedPiece:
    """A bounded run of records of one input file.

    ``records`` is a Parquet file, one row a record in input order:

    ========== ======== =======================================================================
    row        UInt32   0, 1, 2, … within the piece
    line       UInt64   from 1: the input line, array element, or Parquet row it came from
    part       UInt32   which of the line's several records, from 0
    offset     UInt64   decompressed byte at which the line begins
    length     UInt64   bytes of the line, without its line end
    outcome    String   ``ok``, ``dropped`` or ``quarantined``
    reason     String   null where ok; ``code`` or ``code: detail``
    messages   String   JSON array of ``{"role","content"}``; null where quarantined
    labels     String   JSON array, one entry a message: the label it came with, or null; null if none
    prompt_key Binary   128-bit hash of everything before the last turn; null unless ok
    rest       String   the row's other keys as one JSON object, untouched; null if none
    roles      String   a letter a message, such as ``suaua``: system, user, assistant, tool; null if none
    ========== ======== =======================================================================

    ``turns`` is a Parquet file, one row a turn of an ``ok`` record, ordered by (row, turn):
    ``row`` UInt32, ``turn`` UInt32 (0 is the first assistant message), ``key`` Binary (16 bytes),
    ``text_bytes`` UInt32 (UTF-8 bytes of the contents through the turn).
    """

    file: str
    records: Artifact
    turns: Artifact
    counts: Counts
    turn_count: int


@dataclass(frozen=True, slots=True)
class Shortfall:
    """An input that holds less than it should."""

    file: str
    why: str
    """``is cut short: the gzip data end in the middle``."""
    quarantined: int
    """Records in quarantine for it."""

    def __str__(self) -> str:
        """A sentence, without its full stop."""
        records = "1 record of it is" if self.quarantined == 1 else f"{self.quarantined:,} records of it are"
        return f"{self.file} {self.why}; {records} in quarantine"


@dataclass(frozen=True, slots=True)
class Converted:
    """The convert stage's manifest."""

    inputs: tuple[InputFile, ...]
    pieces: tuple[ConvertedPiece, ...]
    counts: Counts
    lines: int
    """Input lines read (array elements, Parquet rows); blank lines are lines."""
    complete: bool
    """False where an input was cut short or damaged."""
    digest: str
    """Of everything else: equal digests mean equal records."""
    shortfalls: tuple[Shortfall, ...] = ()
    """The inputs that are not complete, and why."""


@dataclass(frozen=True, slots=True)
class ScoredPiece:
    """The scores of one converted piece.

    ``scores`` is a Parquet file with the rows of the piece's ``turns``, in their order: ``row`` UInt32,
    ``turn`` UInt32, a Float32 column an attribute (null where there is no score), ``reason`` String
    (null where there is a score), ``tokens_cut`` UInt32 (tokens left out in front, by consent only),
    ``tokens`` UInt32 (of the turn with all that precedes it; null where they were not counted), and a
    Boolean column for each of ``Scored.warnings``.
    """

    scores: Artifact


@dataclass(frozen=True, slots=True)
class Scored:
    """The score stage's manifest. ``pieces`` run parallel to those of ``Converted``."""

    fingerprint: str
    attributes: tuple[str, ...]
    pieces: tuple[ScoredPiece, ...]
    turns: int
    """All turns of ok records."""
    distinct_turns: int
    failed: dict[str, int]
    """Turns without a score, by reason code."""
    segments: tuple[str, ...]
    """Digests of the store's segments that the scores were read from."""
    warnings: dict[str, int] = field(default_factory=dict)
    """What the model's card warns of, a name of ``card_warnings`` each, and of how many conversations it
    is true."""


@dataclass(frozen=True, slots=True)
class FilteredPiece:
    """What became of the records of one converted piece.

    ``decisions`` is a Parquet file, one row a record: ``row`` UInt32, ``outcome`` String (``kept``,
    ``dropped``, ``quarantined``), ``reason`` String (null where kept).
    """

    decisions: Artifact


@dataclass(frozen=True, slots=True)
class Filtered:
    """The filter stage's manifest. ``pieces`` run parallel to those of ``Converted``; ``ok`` means kept."""

    pieces: tuple[FilteredPiece, ...]
    counts: Counts


def to_json(manifest: object) -> bytes:
    """The manifest as one line of JSON, the same bytes for the same manifest."""
    return msgspec.json.encode(manifest, order="deterministic")


def from_json(data: bytes | str, kind: type[T]) -> T:
    """The manifest of that kind; msgspec.ValidationError where it is not one."""
    return msgspec.json.decode(data, type=kind)


def reason_code(reason: str) -> str:
    """What reasons are counted by: the part before the first colon."""
    return reason.partition(":")[0]
