"""What one look at an input shows: its digest, its cuts, how records are packed in it, and their format.

The run looks at files of its own machine. If workers are on other machines and need no folder of the run,
they look at remote files: a worker copies the file and keeps the copy, and the run's machine gets none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import NamedTuple

from assay.core.digests import digest_of_bytes, running_digest
from assay.core.errors import UserMistake
from assay.core.jobs import AtWork, killer
from assay.read.formats import FORMATS, Names, Row, nearest_format, row_of, row_reader
from assay.read.known_files import DigestedFile, KnownFiles, KnownObjects, Look, SeenObject
from assay.read.remote_inputs import (
    RemoteFile,
    copied_and_held,
    place_of_copy,
    reads_elsewhere,
    sweep_copies,
)
from assay.read.sources import DAMAGED_ROW_GROUP, RawRecords, Source, Stamp, column_names, sniff
from assay.read.tables import decoder_kept
from assay.storage.home import Home
from assay.storage.manifests import reason_code
from assay.storage.regular import open_regular
from assay.storage.stage import RunContext
from assay.workers.same_code import code_here

_READ_BYTES = 1 << 20
# A file's format is recognised by its first decodable rows: this many, or as many as these bytes hold.
_SAMPLE_ROWS = 32
_SAMPLE_BYTES = 4 << 20
_NAMED_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class HowToLook:
    """The user's options for reading, which hold for all inputs."""

    format: str
    """A key of ``FORMATS``, or ``auto`` to recognise the format of each file and row."""
    mapped: Names
    shard_bytes: int

    @property
    def depends_on(self) -> str:
        """A digest of these options and this code, which decide with the content what a look shows."""
        fields, speakers = sorted(self.mapped.fields.items()), sorted(self.mapped.speakers.items())
        asked = repr((self.format, fields, speakers, self.shard_bytes))
        return digest_of_bytes(asked.encode(), code_here().encode())


class Looked(NamedTuple):
    """What a look at a file shows."""

    source: Source
    stamp: Stamp
    """Taken before the digest was computed."""
    format: str
    file: DigestedFile
    no_chat: str | None = None
    """Why no row of the file can be read. If it is given, ignore the other fields."""


_NOT_READ = DigestedFile("", 0, (), None)


def look_at(
    name: str, path: str, how: HowToLook, known_files: KnownFiles | None, *, verify: bool = False
) -> Looked:
    """What a look at the file at ``path`` shows. Raises UserMistake if the file cannot be read.

    Messages call the file ``name``, as the user does. The digest and the cuts come from ``known_files`` if
    the file is unchanged and ``verify`` is False.
    """
    try:
        stamp = Stamp.of(path)
        source = sniff(path)
        columns = column_names(source)
        rows = list(_first_rows(source)) if columns or how.format == "auto" else []
        if columns and (why := _why_columns_are_no_chat(columns, rows, how.format, how.mapped)):
            return Looked(source, stamp, "", _NOT_READ, why)
        chosen = _format_of(rows, how.mapped) if how.format == "auto" else how.format
        is_cut = source.container == "lines" and source.compression == "none"
        is_cut = is_cut and FORMATS[chosen].read_file is None
        every = how.shard_bytes if is_cut else None
        look = Look.at(path)
        known = None
        if known_files is not None and not verify:
            known = known_files.known(path, look, shard_bytes=every)
        if known is None:
            known = DigestedFile(*_digest_and_cuts(path, every), every)
            if known_files is not None:
                known_files.learn(path, look, known)
    except OSError as error:
        raise UserMistake(f"{name}: cannot be read: {error.strerror or error}") from error
    except UserMistake as error:
        raise UserMistake(str(error).replace(path, name)) from error
    return Looked(source, stamp, chosen, known)


def looked_at_by_workers(
    files: Sequence[RemoteFile], how: HowToLook, context: RunContext, *, verify: bool
) -> dict[str, Looked]:
    """What a look at each remote file shows, by address. Empty if the run reads remote files itself.

    A worker copies a file to its own machine and reads it there. Unless ``verify`` is set, a file that has
    not changed since a look with the same options and code is not read again. UserMistake for the first file
    that cannot be read.
    """
    if not files or not reads_elsewhere(context):
        return {}
    known, asked = KnownObjects(context.home), how.depends_on
    found: dict[str, SeenObject] = {}
    if not verify:
        for file in files:
            if (seen := known.seen(file.address, file.version, file.size, asked)) is not None:
                found[file.address] = seen
                context.progress.advance()
    left = [file for file in files if file.address not in found]
    jobs = [LookJob(number, file, how, context.home) for number, file in enumerate(left)]
    mistakes: dict[int, str] = {}

    def done(result: _Seen) -> None:
        file = left[result.number]
        if result.mistake is not None:
            mistakes[result.number] = result.mistake
        elif result.seen is not None:
            found[file.address] = result.seen
            known.learn(file.address, file.version, file.size, asked, result.seen)
            known.keep_now_and_then()
        context.progress.advance()

    try:
        context.do(jobs, stage="ingest", done=done, by=context.workers)
    finally:
        # Even if the run fails here, the next one need not read these files again.
        known.keep()
    if mistakes:
        raise UserMistake(mistakes[min(mistakes)])
    return {file.address: _as_looked(file, found[file.address], context.home) for file in files}


def _as_looked(file: RemoteFile, seen: SeenObject, home: Home) -> Looked:
    """What a look at a copy of the run's own would have shown. Its stamp matches no file."""
    place = place_of_copy(file.address, seen.file.digest, home)
    source = Source(place, seen.container, seen.compression)
    return Looked(source, Stamp(seen.file.size, 0, 0), seen.format, seen.file, seen.no_chat)


class _Seen(NamedTuple):
    """A worker's result for one file."""

    number: int
    seen: SeenObject | None
    mistake: str | None = None
    """The message of the UserMistake, if the file cannot be read."""


@dataclass(frozen=True, slots=True)
class LookJob:
    """A worker's job: copy a remote file to its own machine, keep the copy, and look at it."""

    number: int
    file: RemoteFile
    how: HowToLook
    home: Home

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"ingest {self.file.address}"

    @property
    def weight(self) -> int:
        """Bytes of the file."""
        return self.file.size

    def sent(self) -> LookJob:
        """The job for another process, which may be on another machine."""
        return replace(self, home=self.home.sent())

    @decoder_kept()
    def done_by(self, at: AtWork) -> _Seen:
        """What a look at the file shows. Raises what ``copied`` raises."""
        home = self.home.here()
        _sweep_once(home)
        with copied_and_held(self.file, home, at.check) as path:
            at.check()
            try:
                looked = look_at(self.file.address, path, self.how, None)
            except UserMistake as mistake:
                return _Seen(self.number, None, str(mistake))
        source = looked.source
        seen = SeenObject(source.container, source.compression, looked.format, looked.file, looked.no_chat)
        return _Seen(self.number, seen)

    def halves(self) -> Sequence[LookJob]:
        """Nothing: the digest needs the whole file."""
        return ()

    def of_a_killer(self) -> _Seen:
        """Raises ClusterFault: a run cannot go on if it does not know what an input holds."""
        raise killer(self.name)


@cache
def _sweep_once(home: Home) -> None:
    """Remove old copies. Only the first call in a process does it, because it lists all copies."""
    sweep_copies(RunContext(home))


def _digest_and_cuts(path: str, shard_bytes: int | None) -> tuple[str, int, tuple[tuple[int, int], ...]]:
    """The file's digest, its size, and the (offset, line from 1) where each shard begins, in one pass.

    A shard ends at the first line end after ``shard_bytes``. None leaves the file whole.
    """
    running = running_digest()
    size = lines = 0
    cuts = [(0, 1)]
    with open_regular(path) as file:
        while chunk := file.read(_READ_BYTES):
            running.update(chunk)
            if shard_bytes is not None:
                looked = 0
                while (due := cuts[-1][0] + shard_bytes - size) <= len(chunk):
                    end = chunk.find(b"\n", max(due - 1, looked, 0)) + 1
                    if not end:
                        break
                    lines += chunk.count(b"\n", looked, end)
                    looked = end
                    cuts.append((size + end, lines + 1))
                lines += chunk.count(b"\n", looked)
            size += len(chunk)
    if len(cuts) > 1 and cuts[-1][0] == size:
        cuts.pop()
    return running.hexdigest(), size, tuple(cuts)


#: Columns that hold messages in other files. In a CSV, pandas writes them as Python literals, not as JSON.
_OF_MESSAGES = ("messages", "conversations", "conversation")


def _why_columns_are_no_chat(
    names: Sequence[str], rows: Sequence[Row], format: str, mapped: Names
) -> str | None:
    """Why no row of a CSV or TSV can be read: its first line names other columns. None where one can."""
    reader = row_reader(mapped)
    may_have = [one for one in reader.formats_of(names) if format in ("auto", one)]
    if any(map(reader.format_of, rows)) or (may_have and (format != "auto" or not rows)):
        return None
    named = ", ".join(names[:_NAMED_COLUMNS]) + (" …" if len(names) > _NAMED_COLUMNS else "")
    why = f"has no columns of a chat: its first line names {named}. "
    for name in set(_OF_MESSAGES) & set(names):
        return f"{why}Its column {name} must hold JSON lists of messages, as json.dumps writes them."
    return (
        f"{why}Name them there, such as prompt and response, or messages (JSON lists), or map them: "
        "--map 'COLUMN=prompt'."
    )


def _format_of(rows: Sequence[Row], names: Names) -> str:
    """The format that most of a file's first rows have; if none has any, the one they come nearest to.

    If a row is part of a tree, the format is that of trees: it reads the whole file, with all other rows.
    """
    reader = row_reader(names)
    recognised = Counter(format.name for row in rows if (format := reader.format_of(row)) is not None)
    whole = next((name for name in recognised if FORMATS[name].read_file is not None), None)
    if whole is not None:
        return whole
    nearest = Counter(nearest_format(row).name for row in rows)
    for votes in (recognised, nearest):
        if votes:
            return votes.most_common(1)[0][0]
    return "messages"


def _first_rows(source: Source) -> Iterator[Row]:
    held = 0
    # Skip rows of a damaged row group: they show nothing of the format, and a file may begin with many.
    raws = (raw for raw in RawRecords(source) if reason_code(raw.problem or "") != DAMAGED_ROW_GROUP)
    for raw in islice(raws, 4 * _SAMPLE_ROWS):
        row = row_of(raw.data)
        if not isinstance(row, str):
            yield row
        held += raw.length
        if held > _SAMPLE_BYTES:
            return
