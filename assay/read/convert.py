"""Shards → records: parse, check what needs no model, write Parquet pieces.

Every shard has a folder below ``artifacts/convert``, named by a digest of all that its result depends on. Its
``manifest.json`` is written last. A shard with a manifest and unaltered files is not converted again.
"""

from __future__ import annotations

import operator
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, compress
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import polars as pl

from assay.core.digests import digest_of_bytes, digest_of_file
from assay.core.errors import AssayError, InputFault, StoreRefusal, UserMistake
from assay.core.jobs import IN_THIS_PROCESS, AtWork, Workers, killer
from assay.core.progress import Progress
from assay.core.reasoning import NothingElse, turns_with_reasoning, without_reasoning
from assay.core.schema import GIVEN, MAY_BEGIN_THOUGHT, Message, TurnKey, is_call, roles_of, turn_keys
from assay.read.formats import (
    FORMATS,
    Misfits,
    MissingField,
    Names,
    Reading,
    Row,
    Unreadable,
    row_of,
    row_reader,
)
from assay.read.formats.reading import More, is_blank
from assay.read.inventory import InputShard, Inventory
from assay.read.kept_languages import are_kept, languages_of
from assay.read.remote_inputs import fetch_copy, in_use, reads_elsewhere
from assay.read.sources import (
    CUT_SHORT,
    DAMAGED_ROW_GROUP,
    MAX_RECORD_BYTES,
    RawRecord,
    RawRecords,
    Source,
    Stamp,
)
from assay.read.tables import decoder_kept
from assay.storage.addresses import is_remote
from assay.storage.artifacts import Artifacts, are_intact, artifacts_of, read_artifact
from assay.storage.conversations import FieldKind, conversation_json, field_kinds, field_names, merged_kinds
from assay.storage.disk import full_disk_named
from assay.storage.home import Artifact, Home
from assay.storage.manifests import (
    Converted,
    ConvertedPiece,
    Counts,
    InputFile,
    Shortfall,
    reason_code,
    to_json,
)
from assay.storage.sealed import Altered, decoded, is_as_sealed, sealed_json
from assay.storage.stage import RunContext, Stage

#: Part of every shard's key: raise it when the same input gives other records.
VERSION = 13

#: A piece is closed at this much text of messages, or this many records.
PIECE_TEXT_BYTES = 16 << 20
PIECE_RECORDS = 50_000

#: So much to convert is worth starting workers for: 13 CPU seconds of short conversations, of which two
#: workers save nearly half. To start them takes 2.2 (measured, ``benchmarks/grow.py``'s data).
_WORTH_WORKERS_BYTES = 128 << 20

#: A shard looks whether it is still wanted once in so many records.
_CHECKED_RECORDS = 256

T = TypeVar("T")

_ENCODE = msgspec.json.Encoder().encode
_COMPRESSION_LEVEL = 1


@dataclass(frozen=True, slots=True)
class _ConvertedShard:
    """The content of a shard's ``manifest.json``."""

    pieces: tuple[ConvertedPiece, ...]
    lines: int
    why_incomplete: str | None = None
    """Why the file is cut short or damaged, in the words of ``RawRecords``."""


@dataclass(frozen=True, slots=True)
class ToConvert:
    """The input of the convert stage."""

    inventory: Inventory
    limit: int | None = None
    """Take only the first so many records; None: all."""
    strict: bool = False
    """Raise InputFault at the first record that is quarantined."""
    max_record_bytes: int = MAX_RECORD_BYTES
    """A longer record is quarantined and never held in memory."""
    hide_reasoning: bool = False
    """Make the turns' keys, and what a model is shown, of messages without the assistant's reasoning."""
    find_languages: bool = False
    """Also find the language of every conversation. They are kept beside the records, and change none."""


@decoder_kept()
def convert(given: ToConvert, context: RunContext) -> Converted:
    """The inventory's records as pieces among the artifacts, in input order.

    Shards that no earlier run has converted are converted by the run's workers, where there is enough to
    convert. With a limit this process converts one after the other: what one takes leaves less to the next.
    """
    inventory, limit, watcher = given.inventory, given.limit, context.progress
    watcher.begin("convert", sum(shard.length for shard in inventory.shards), "bytes")
    shards = _in_order(given, context) if limit is None else _up_to(limit, given, context)
    pieces = tuple(piece for made in shards for piece in made.pieces)
    shortfalls = tuple(
        _shortfall(inventory.files[shard.file].path, made, made.why_incomplete, limited=limit is not None)
        for shard, made in zip(inventory.shards, shards, strict=False)
        if made.why_incomplete is not None
    )
    converted = Converted(
        inputs=inventory.files,
        pieces=pieces,
        counts=Counts.tallied(chain.from_iterable(piece.counts.tallies() for piece in pieces)),
        lines=sum(made.lines for made in shards),
        complete=not shortfalls,
        digest="",
        shortfalls=shortfalls,
        left_out=dict(sorted(sum((Counter(piece.left_out) for piece in pieces), Counter()).items())),
    )
    return replace(converted, digest=digest_of_bytes(to_json(converted)))


def _in_order(given: ToConvert, context: RunContext) -> list[_ConvertedShard]:
    """Every shard, converted by this run or by an earlier one."""
    shards = _Shards(given, context)
    left = [job for number in range(len(given.inventory.shards)) if (job := shards.reuse(number))]
    if sum(job.weight for job in left) >= _WORTH_WORKERS_BYTES and context.workers.are_several:
        for job in left:
            # Make it before any worker does: this machine may remember for a while that it was not there.
            artifacts_of(context.home).begin(job.shard.folder)
        context.do(left, stage="convert", done=shards.take, by=context.workers)
    else:
        for by, jobs in _by_whom(left, context):
            context.do(jobs, stage="convert", done=shards.take, by=by)
    context.do(shards.missed, stage="convert", done=shards.take, by=IN_THIS_PROCESS)
    return shards.converted()


def _by_whom(
    jobs: Sequence[_ConvertJob], context: RunContext
) -> Iterator[tuple[Workers, Sequence[_ConvertJob]]]:
    """Yield who does which of a few jobs: this process, except for files that only workers copy."""
    elsewhere = [job.reads_elsewhere(context) for job in jobs]
    yield context.workers, list(compress(jobs, elsewhere))
    yield IN_THIS_PROCESS, [job for job, other in zip(jobs, elsewhere, strict=True) if not other]


def _up_to(limit: int, given: ToConvert, context: RunContext) -> list[_ConvertedShard]:
    """The shards that hold the first so many records."""
    shards = _Shards(given, context)
    for number in range(len(given.inventory.shards)):
        if limit <= 0:
            break
        if job := shards.reuse(number, limit):
            for by, jobs in _by_whom([job], context):
                context.do(jobs, stage="convert", done=shards.take, by=by)
            context.do(shards.missed, stage="convert", done=shards.take, by=IN_THIS_PROCESS)
            shards.missed.clear()
        limit -= shards.records_of(number)
    return shards.converted()


class _Shards:
    """The shards of an inventory, as they are found converted or get converted, in any order."""

    def __init__(self, given: ToConvert, context: RunContext) -> None:
        self._given = given
        self._context = context
        self._jobs: dict[int, _ConvertJob] = {}
        self._ended: dict[int, _Ended] = {}
        self._in_order = 0
        """So many shards from the first on have been converted."""
        self._warned = False
        self.missed: list[_ConvertJob] = []
        """Jobs that a worker could not do, and that this process has to do."""

    def reuse(self, number: int, limit: int | None = None) -> _ConvertJob | None:
        """What is left to do for this shard; None where an earlier run has done it, which is then taken."""
        job = _ConvertJob(number, self._job(number, limit), self._context.home, self._given.strict)
        made = job.shard.reused(self._context.home, self._context.progress)
        self._jobs[number] = job = replace(job, made=made, find_languages=self._given.find_languages)
        if made is None or (job.find_languages and not are_kept(made.pieces, self._context.home)):
            return job
        self.take(_Ended(number, made))
        return None

    def _job(self, number: int, limit: int | None) -> _ShardJob:
        given, inventory = self._given, self._given.inventory
        shard = inventory.shards[number]
        file, source, read_from = inventory.files[shard.file], inventory.sources[shard.file], None
        if self._context.home.artifact_store is not None and is_remote(file.path):
            # Machines that share a bucket have copies at different paths: none of them is in the key.
            source, read_from = replace(source, path=file.path), source.path
        return _ShardJob(
            file,
            source,
            inventory.stamps[shard.file],
            shard,
            limit,
            given.max_record_bytes,
            inventory.names,
            inventory.named,
            given.hide_reasoning,
            read_from,
        )

    def take(self, ended: _Ended) -> None:
        """Take what became of a shard. InputFault where it cannot be converted, or is not to be.

        Of several shards with a fault, the first in the order of the input is raised.
        """
        job = self._jobs[ended.number]
        if ended.host and (why := self._why_useless(job, ended)):
            self._miss(job, ended, why)
            return
        self._ended[ended.number] = ended
        while (first := self._ended.get(self._in_order)) is not None:
            fault = first.unlike or first.refused
            if fault is not None:
                raise InputFault(fault)
            if self._given.strict and first.made is not None:
                _refuse_quarantine(first.made, self._context.home)
            self._in_order += 1
        if ended.made is not None:
            self._context.progress.advance(job.weight, records=ended.records)

    def _why_useless(self, job: _ConvertJob, ended: _Ended) -> str | None:
        """Why another machine's result is of no use, and what to do; None where it is."""
        if ended.unlike is not None and is_remote(job.shard.file.path) and ended.was_sent:
            return f"{ended.unlike.removesuffix('.')}. Let every machine reach the inputs"
        if ended.unlike is not None and ended.host != socket.gethostname():
            return (
                f"{job.shard.file.path} is not there, or is another file (by size, time or inode). Let every "
                "machine have the inputs on one file system, at the same paths"
            )
        files, shard = artifacts_of(self._context.home), job.shard
        if ended.made is not None and not files.hold([shard.manifest]):
            folder = files.place_of(shard.folder)
            return f"{folder} is not there for this one. Let every machine have the same ASSAY_HOME"
        return None

    def _miss(self, job: _ConvertJob, ended: _Ended, why: str) -> None:
        """Leave the shard to this process, and report once why a worker could not convert it."""
        if not self._warned:
            self._context.say(f"worker on {ended.host}: {why}; this machine converts what others cannot")
        self._warned = True
        self.missed.append(job)

    def records_of(self, number: int) -> int:
        """How many records a shard holds that has been taken."""
        return self._ended[number].records

    def converted(self) -> list[_ConvertedShard]:
        """The shards, in input order."""
        return [made for _, ended in sorted(self._ended.items()) if (made := ended.made) is not None]


def _shortfall(file: str, made: _ConvertedShard, why: str, *, limited: bool) -> Shortfall:
    """Why an incomplete shard is incomplete. AssayError where no record in quarantine shows it.

    With ``limited`` that record may lie after the last one taken, so its absence is no error.
    """
    quarantined = sum(
        piece.counts.quarantined.get(reason, 0)
        for piece in made.pieces
        for reason in (CUT_SHORT, DAMAGED_ROW_GROUP)
    )
    if not quarantined and not limited:
        raise AssayError(
            f"{file} {why}, but no record in quarantine says so. This is a bug in Assay: report it."
        )
    return Shortfall(file, why, quarantined)


class _Ended(NamedTuple):
    """What became of a shard."""

    number: int
    made: _ConvertedShard | None = None
    host: str = ""
    """The machine that converted it in this run."""
    was_sent: bool = False
    """Whether that was a worker and not the run's own process."""
    unlike: str | None = None
    """Why that machine's file is not the one of the inventory."""
    refused: str | None = None
    """Why a strict run ends."""

    @property
    def records(self) -> int:
        """How many records it holds."""
        return sum(piece.counts.read for piece in self.made.pieces) if self.made is not None else 0


@dataclass(frozen=True, slots=True)
class _ConvertJob:
    """A shard of the inventory to convert, or to find the languages of, as workers are handed it."""

    number: int
    """Its place in the inventory."""
    shard: _ShardJob
    home: Home
    strict: bool
    made: _ConvertedShard | None = None
    """The shard, where an earlier run has converted it."""
    find_languages: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"convert {self.shard.place}"

    @property
    def weight(self) -> int:
        """Bytes of the input."""
        return self.shard.shard.length

    def reads_elsewhere(self, context: RunContext) -> bool:
        """Whether the job must read a file that the run's machine has no copy of."""
        return self.made is None and is_remote(self.shard.file.path) and reads_elsewhere(context)

    def sent(self) -> _ConvertJob:
        """The job for another process: it reads the file at the same absolute path, or a copy of its own."""
        shard = replace(self.shard, read_from=os.path.abspath(self.shard.path))
        return replace(self, shard=shard, home=self.home.sent())

    @decoder_kept()
    def done_by(self, at: AtWork) -> _Ended:
        """The shard, converted in this process, with its languages beside it."""
        home = self.home.here()
        was_sent = self.home.host is not None
        ended = _Ended(self.number, host=socket.gethostname(), was_sent=was_sent)
        with full_disk_named(home.root):
            try:
                made = self.made
                if made is None:
                    with self.shard.at_hand(home) as shard:
                        made = shard.made(home, strict=self.strict, check=at.check)
            except _Unlike as error:
                return ended._replace(unlike=str(error))
            except _Refused as error:
                return ended._replace(refused=str(error))
            if self.find_languages:
                for piece in made.pieces:
                    at.check()
                    languages_of(piece, home)
        return ended._replace(made=made)

    def halves(self) -> Sequence[_ConvertJob]:
        """Nothing: a shard has one folder."""
        return ()

    def of_a_killer(self) -> _Ended:
        """ClusterFault: a run that cannot convert a shard ends, for no record may be missing."""
        raise killer(self.name)


class _Unlike(InputFault):
    """The file is not the one of the inventory."""


class _Refused(InputFault):
    """A strict run met a record to quarantine."""


@dataclass(frozen=True, slots=True)
class _ShardJob:
    """One shard to convert, and everything that its result depends on."""

    file: InputFile
    source: Source
    stamp: Stamp
    """Not part of the key. It shows whether somebody changed the file since the inventory."""
    shard: InputShard
    limit: int | None
    max_record_bytes: int
    names: Names
    named: bool
    """Whether the user named the file's format."""
    hide_reasoning: bool
    read_from: str | None = None
    """The path that is read, where it is another than the source's. Not part of the key."""

    @property
    def place(self) -> str:
        """The file, and where in it, for messages."""
        if self.shard.whole:
            return self.file.path
        return f"{self.file.path}:{self.shard.first_line}"

    @contextmanager
    def at_hand(self, home: Home) -> Iterator[_ShardJob]:
        """Yield the job for this process, which reads a remote file from a copy in this machine's home.

        The copy stays there until the context ends. Raises _Unlike if the file cannot be copied, or differs
        from what the inventory found.
        """
        if not is_remote(self.file.path):
            yield self
            return
        with ExitStack() as stack:
            yield self._copied(home, stack)

    def _copied(self, home: Home, stack: ExitStack) -> _ShardJob:
        with suppress(OSError):
            if Stamp.of(self.path) == self.stamp:
                return self
        try:
            fetch_copy(self.file, home)
            path = stack.enter_context(in_use(self.file, home))
            stamp = Stamp.of(path)
        except (UserMistake, StoreRefusal, InputFault) as error:
            raise _Unlike(str(error)) from error
        except OSError as error:
            raise _Unlike(f"{self.file.path}: was changed or removed since it was listed") from error
        if _digest(path, stamp) != self.file.digest:
            raise _Unlike(f"{path}: is damaged; remove this copy of {self.file.path}")
        return replace(self, read_from=path, stamp=stamp)

    @property
    def key(self) -> str:
        shard = self.shard
        parts = (
            VERSION,
            self.file,
            self.source,
            (shard.offset, shard.length, shard.first_line, shard.whole),
            self.limit,
            self.max_record_bytes,
            (self.names.fields, self.names.speakers, self.named),
            (PIECE_TEXT_BYTES, PIECE_RECORDS),
            self.hide_reasoning,
        )
        return digest_of_bytes(to_json(parts))

    @property
    def about(self) -> str:
        return f"convert {self.key}"

    @property
    def folder(self) -> str:
        """The folder of its files, below the artifacts' folder or address."""
        return f"convert/{self.key}"

    @property
    def manifest(self) -> str:
        """Its manifest, which is written last."""
        return f"{self.folder}/manifest.json"

    def reused(self, home: Home, progress: Progress) -> _ConvertedShard | None:
        """The shard as an earlier run converted it; None where that is missing, damaged or altered."""
        files = artifacts_of(home)
        data = files.read_sealed(self.manifest)
        if data is None:
            return None
        try:
            content = decoded(data)
            made = msgspec.convert(content, _ConvertedShard)
            if not is_as_sealed(content, about=self.about):
                raise Altered("its digest does not match its content")
        except (Altered, msgspec.ValidationError):
            progress.say(f"{self.file.path}: the manifest of its conversion is damaged; converting it again.")
            return None
        altered = files.first_altered(
            [artifact for piece in made.pieces for artifact in (piece.records, piece.turns)]
        )
        if altered is not None:
            place = files.place_of(altered.path)
            progress.say(f"{self.file.path}: {place} is gone or altered; converting it again.")
            return None
        return made

    def made(self, home: Home, *, strict: bool, check: Callable[[], None]) -> _ConvertedShard:
        """The shard, converted now. Its manifest is written last. ``check`` may raise to end this early."""
        files = artifacts_of(home)
        files.begin(self.folder)
        self._refuse_changed()
        raws = RawRecords(
            replace(self.source, path=self.path),
            offset=self.shard.offset,
            length=None if self.shard.whole else self.shard.length,
            first_line=self.shard.first_line,
            max_record_bytes=self.max_record_bytes,
        )
        pieces: list[ConvertedPiece] = []
        piece = _Piece(hide_reasoning=self.hide_reasoning)
        readings = _readings(self.file.format, self.names, raws, named=self.named)
        for number, (raw, part, reading) in enumerate(readings, 1):
            if not number % _CHECKED_RECORDS:
                check()
            if piece.is_full:
                pieces.append(piece.written(self.folder, len(pieces), self.file.path, files))
                piece = _Piece(hide_reasoning=self.hide_reasoning)
            reason = piece.add(raw, part, reading)
            if strict and reason is not None:
                raise _Refused(f"{self.file.path}:{raw.line}: {reason}")
            if number == self.limit:
                break
        if piece.size:
            pieces.append(piece.written(self.folder, len(pieces), self.file.path, files))
        # If the file changed meanwhile, the key would name other bytes than those that were read.
        self._refuse_changed()
        made = _ConvertedShard(tuple(pieces), raws.lines, raws.why_incomplete)
        files.keep_sealed(sealed_json(msgspec.to_builtins(made), about=self.about), self.manifest)
        return made

    @property
    def path(self) -> str:
        """The path that is read."""
        return self.read_from or self.source.path

    def _refuse_changed(self) -> None:
        """Raise InputFault where the file's stamp shows that it changed since the inventory."""
        try:
            stamp = Stamp.of(self.path)
        except OSError as error:
            raise _Unlike(f"{self.file.path}: can no longer be read: {error.strerror}") from error
        if stamp != self.stamp:
            raise _Unlike(
                f"{self.file.path}: was changed while it was read ({self.stamp.size} bytes then, "
                f"{stamp.size} now). Run again when no program writes to it."
            )


@lru_cache(maxsize=256)
def _digest(path: str, stamp: Stamp) -> str:
    """The digest of the file, which this process computes once as long as the file has the stamp."""
    return digest_of_file(Path(path))


def _readings(
    format: str, names: Names, raws: RawRecords, *, named: bool
) -> Iterator[tuple[RawRecord, int, Reading]]:
    """Yield the raw record, part and reading of every record, in input order.

    Rows have the ``format`` of their file where the user named it; else each row has the one that it shows.
    """
    chosen = FORMATS[format]
    reader = row_reader(names, named=format if named else None)
    misfits = Misfits(reader, FORMATS)

    def misread(row: Row, missing: str) -> list[Reading]:
        return [Reading([], problem=misfits.reason(row, read_as=format, missing=missing))]

    def read(row: Row) -> list[Reading]:
        try:
            return reader.readings(row, chosen)
        except Unreadable as error:
            return [Reading([], problem=str(error))]
        except MissingField as error:
            return misread(row, str(error))

    if chosen.read_file is not None:
        otherwise = misread if named else lambda row, missing: read(row)
        yield from chosen.read_file(((raw, _row(raw)) for raw in raws), otherwise, names)
        return
    for raw in raws:
        row = raw.problem or row_of(raw.data)
        if isinstance(row, str):
            yield raw, 0, Reading([], problem=row)
            continue
        readings = read(row)
        if len(readings) == 1:
            yield raw, 0, readings[0]
        else:
            for part, reading in enumerate(readings):
                yield raw, part, reading


def _row(raw: RawRecord) -> Row | str:
    return raw.problem or row_of(raw.data)


class _Judged(NamedTuple):
    """The outcome of a reading."""

    outcome: str
    reason: str | None = None
    messages: bytes | None = None
    shown: bytes | None = None
    """The messages as a model is shown them, where these are others."""
    roles: str | None = None
    turns: Sequence[TurnKey] = ()
    reasoning_turns: int = 0
    plain: bool = False
    """Whether each message is a speaker and a text that begins with no reasoning."""


def _judged(reading: Reading, *, hide_reasoning: bool) -> _Judged | None:
    """The outcome: ``ok``, ``dropped`` or ``quarantined``; None where a system message holds nothing.

    An ok one has at least one turn.
    """
    messages, _, _, problem, drop, _, tools = reading
    plain, roles = True, ""
    if problem is None:
        # One look at each message, for there are many: nearly all are plain, and begin with no reasoning.
        for number, message in enumerate(messages, 1):
            content = message.content
            if type(message) is Message and content and content[0] not in MAY_BEGIN_THOUGHT:
                roles += message.role[0]
                continue
            plain = False
            # A call of tools need not say anything.
            if (not content or content.isspace()) and not is_call(message):
                if message.role == "system":
                    return None
                problem = f"empty_content: message {number} ({message.role})"
                break
    if problem is not None:
        return _Judged("quarantined", problem)
    reasoning_turns, shown = 0, None
    if plain:
        encoded = _ENCODE(messages)
    else:
        encoded, roles = conversation_json(messages), roles_of(messages)
        reasoning_turns = turns_with_reasoning(messages)
        if hide_reasoning:
            try:
                bare = without_reasoning(messages)
            except NothingElse as nothing:
                return _Judged("quarantined", str(nothing))
            if any(map(operator.is_not, bare, messages)):
                shown = bare
    turns: list[TurnKey] = []
    if drop is None:
        turns = turn_keys(messages if shown is None else shown, tools)
        if not turns:
            drop = "no_assistant_turn" if messages else "no_messages"
    return _Judged(
        "ok" if drop is None else "dropped",
        drop,
        encoded,
        None if shown is None else conversation_json(shown),
        roles or None,
        turns,
        reasoning_turns if drop is None else 0,
        plain,
    )


def _without_blank_systems(reading: Reading) -> Reading:
    """The reading without system messages that hold nothing: a blank system text is none."""
    stay = [message.role != "system" or not is_blank(message.content) for message in reading.messages]
    more = reading.more or More()
    # What such a message held beside its text has no place any more.
    gone = {
        name
        for message, stays in zip(reading.messages, stay, strict=True)
        if not stays
        for name in field_names(message)
    }
    return reading._replace(
        messages=list(compress(reading.messages, stay)),
        labels=None if reading.labels is None else list(compress(reading.labels, stay)),
        more=more._replace(
            given=more.given and list(compress(more.given, stay)), left_out={*more.left_out, *gone}
        ),
    )


class _Piece:
    """Columns of the records gathered so far. Plain lists cost the least time per record."""

    def __init__(self, *, hide_reasoning: bool) -> None:
        self.size = 0
        self.is_full = False
        self._hide_reasoning = hide_reasoning
        self._text_bytes = 0
        self._places: list[tuple[int, int, int, int]] = []
        self._outcomes: list[str] = []
        self._reasons: list[str | None] = []
        self._messages: list[bytes | None] = []
        self._labels: list[bytes | None] = []
        self._prompt_keys: list[bytes | None] = []
        self._rests: list[bytes | None] = []
        self._reasoning_turns = 0
        self._roles: list[str | None] = []
        self._turn_rows: list[int] = []
        self._turn_numbers: list[int] = []
        self._turn_keys: list[bytes] = []
        self._turn_bytes: list[int] = []
        self._turn_prompts: list[bytes] = []
        # By their turn's or their record's place; few have any.
        self._given: dict[int, bytes] = {}
        self._nemo_prompts: dict[int, str] = {}
        self._tools: dict[int, str] = {}
        self._shown: dict[int, bytes] = {}
        self._given_names: set[str] = set()
        self._fields: dict[str, FieldKind] = {}
        self._left_out: Counter[str] = Counter()

    def add(self, raw: RawRecord, part: int, reading: Reading) -> str | None:
        """Add a record as the next row. Returns the reason if it is quarantined."""
        judged = _judged(reading, hide_reasoning=self._hide_reasoning)
        if judged is None:
            return self.add(raw, part, _without_blank_systems(reading))
        outcome, reason, messages, shown, roles, turns, reasoning_turns, plain = judged
        labels = reading.labels if messages is not None else None
        line, offset, length, _, _ = raw
        self._places.append((line, part, offset, length))
        self._outcomes.append(outcome)
        self._reasons.append(reason)
        self._messages.append(messages)
        self._labels.append(_ENCODE(labels) if labels is not None else None)
        self._prompt_keys.append(turns[-1].prompt_key if turns else None)
        self._rests.append(reading.rest)
        if reading.tools is not None:
            self._tools[self.size] = reading.tools
        if shown is not None:
            self._shown[self.size] = shown
        if not plain and messages is not None:
            self._fields = merged_kinds(self._fields, field_kinds(reading.messages))
        self._reasoning_turns += reasoning_turns
        self._roles.append(roles)
        if reading.more is not None and turns:
            self._add_more(reading.more, roles or "")
        for number, turn in enumerate(turns):
            self._turn_rows.append(self.size)
            self._turn_numbers.append(number)
            self._turn_keys.append(turn.key)
            self._turn_bytes.append(turn.text_bytes)
            self._turn_prompts.append(turn.prompt_key)
        self._text_bytes += len(messages or b"")
        self.size += 1
        self.is_full = self._text_bytes >= PIECE_TEXT_BYTES or self.size >= PIECE_RECORDS
        return reason if outcome == "quarantined" else None

    def _add_more(self, more: More, roles: str) -> None:
        """Take what few records have, of the record that is being added. Its turns come next."""
        self._left_out.update(more.left_out)
        if more.nemo_prompt is not None:
            self._nemo_prompts[self.size] = more.nemo_prompt
        of_turns = (one for one, role in zip(more.given or (), roles, strict=False) if role == "a")
        for place, one in enumerate(of_turns, len(self._turn_rows)):
            if one:
                named = {f"{GIVEN}{name}": value for name, value in one.items()}
                self._given[place] = _ENCODE(named)
                self._given_names.update(named)

    def written(self, folder: str, number: int, file: str, files: Artifacts) -> ConvertedPiece:
        """Write the two Parquet files. Returns the piece."""
        line, part, offset, length = zip(*self._places, strict=True)
        records = pl.DataFrame(
            [
                pl.int_range(self.size, dtype=pl.UInt32, eager=True).alias("row"),
                pl.Series("line", line, pl.UInt64),
                pl.Series("part", part, pl.UInt32),
                pl.Series("offset", offset, pl.UInt64),
                pl.Series("length", length, pl.UInt64),
                pl.Series("outcome", self._outcomes, pl.String),
                pl.Series("reason", self._reasons, pl.String),
                _text_column("messages", self._messages),
                _text_column("labels", self._labels),
                pl.Series("prompt_key", self._prompt_keys, pl.Binary),
                _text_column("rest", self._rests),
                pl.Series("roles", self._roles, pl.String),
                pl.Series("nemo_prompt", _sparse(self._nemo_prompts, self.size), pl.String),
                pl.Series("tools", _sparse(self._tools, self.size), pl.String),
                _text_column("shown", _sparse(self._shown, self.size)),
            ]
        )
        turns = pl.DataFrame(
            [
                pl.Series("row", self._turn_rows, pl.UInt32),
                pl.Series("turn", self._turn_numbers, pl.UInt32),
                pl.Series("key", self._turn_keys, pl.Binary),
                pl.Series("text_bytes", self._turn_bytes, pl.UInt32),
                pl.Series("prompt_key", self._turn_prompts, pl.Binary),
                _text_column("given", _sparse(self._given, len(self._turn_rows))),
            ]
        )
        return ConvertedPiece(
            file=file,
            records=_parquet(records, f"{folder}/{number:04d}.records.parquet", files),
            turns=_parquet(turns, f"{folder}/{number:04d}.turns.parquet", files),
            counts=Counts.tallied(
                (outcome, reason and reason_code(reason), 1)
                for outcome, reason in zip(self._outcomes, self._reasons, strict=True)
            ),
            turn_count=len(self._turn_rows),
            given=tuple(sorted(self._given_names)),
            left_out=dict(sorted(self._left_out.items())),
            reasoning_turns=self._reasoning_turns,
            fields=self._fields,
            with_tools=len(self._tools),
        )


def _sparse(values: Mapping[int, T], size: int) -> list[T | None]:
    """A column of which few places have a value."""
    return list(map(values.get, range(size))) if values else [None] * size


def _text_column(name: str, values: list[bytes | None]) -> pl.Series:
    return pl.Series(name, values, pl.Binary).cast(pl.String)


def _parquet(frame: pl.DataFrame, path: str, files: Artifacts) -> Artifact:
    place = files.place_of(path)
    try:
        with full_disk_named(place):
            return files.keep_table(frame, path, compression_level=_COMPRESSION_LEVEL, statistics=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise AssayError(f"{place}: cannot be written: {error}") from error


def _refuse_quarantine(made: _ConvertedShard, home: Home) -> None:
    """Raise InputFault that names the shard's first quarantined record, if it has one."""
    for piece in made.pieces:
        if piece.counts.quarantined:
            records = read_artifact(piece.records, home, ["line", "outcome", "reason"])
            line, _, reason = records.filter(pl.col("outcome") == "quarantined").row(0)
            raise InputFault(f"{piece.file}:{line}: {reason}")


def _key(given: ToConvert) -> str:
    """A digest of all that the records depend on. A strict run must not use a lenient run's result."""
    inventory = given.inventory
    return digest_of_bytes(
        # The stamps are left out: equal bytes give equal records, whenever the files changed last.
        to_json((inventory.files, inventory.sources, inventory.shards)),
        to_json((inventory.names.fields, inventory.names.speakers, inventory.named)),
        to_json((given.limit, given.strict, given.max_record_bytes, given.hide_reasoning)),
    )


def _is_current(given: ToConvert, converted: Converted, home: Home) -> bool:
    """Whether all files of records and turns are there and unaltered."""
    return are_intact((file for piece in converted.pieces for file in (piece.records, piece.turns)), home)


CONVERT = Stage("convert", VERSION, Converted, _key, _is_current, convert)
