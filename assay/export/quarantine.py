"""``quarantine.jsonl``: every record that could not be processed, with its reason and its original bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
import polars as pl

from assay.core.errors import InputFault, UserMistake
from assay.core.jobs import AtWork, killer
from assay.read.damage import DamagedTable
from assay.read.known_files import KnownFiles
from assay.read.remote_inputs import in_use
from assay.read.sources import DAMAGED_ROW_GROUP, Stamp, read_originals
from assay.storage.handed_over import HandedOver, handing_over
from assay.storage.home import Home
from assay.storage.manifests import InputFile, reason_code

#: Reason codes of what cannot be held or read; its original stays where it is.
WITHOUT_ORIGINAL = ("line_too_long", DAMAGED_ROW_GROUP)

#: Lines are written in blocks of about this many bytes.
_BLOCK_BYTES = 1 << 20


def quarantine_lines(
    file: InputFile, records: pl.DataFrame, home: Home, known: KnownFiles | None = None
) -> Iterator[bytes]:
    """Yield a JSON line a record: ``file``, ``line``, ``part``, ``offset``, ``reason``, and the original.

    ``records`` are of one file, in input order: ``line``, ``part``, ``offset``, ``length``, ``reason``.
    The original is ``original`` where its bytes are UTF-8, else ``original_base64``. A line that is
    too long to be held has its ``length`` in bytes instead, and a row that cannot be read that of its row
    group. InputFault where the file is no longer what was converted. A run's
    files share ``known``.
    """
    with in_use(file, home) as path:
        originals = _Originals(file, path, records, known or KnownFiles(home))
        encode = msgspec.json.Encoder().encode
        for line, part, offset, length, reason in records.select(
            "line", "part", "offset", "length", "reason"
        ).iter_rows():
            entry: dict[str, str | int] = {
                "file": file.path,
                "line": line,
                "part": part,
                "offset": offset,
                "reason": reason,
            }
            if reason_code(reason) in WITHOUT_ORIGINAL:
                entry["length"] = length
            else:
                original = originals.take(offset, length)
                try:
                    entry["original"] = original.decode()
                except UnicodeDecodeError:
                    entry["original_base64"] = base64.b64encode(original).decode()
            yield encode(entry) + b"\n"
        originals.finish()


def quarantine_blocks(
    file: InputFile, records: pl.DataFrame, home: Home, known: KnownFiles | None = None
) -> Iterator[bytes]:
    """Yield what ``quarantine_lines`` yields, in blocks of whole lines of about a megabyte."""
    block: list[bytes] = []
    size = 0
    for line in quarantine_lines(file, records, home, known):
        block.append(line)
        size += len(line)
        if size >= _BLOCK_BYTES:
            yield b"".join(block)
            block, size = [], 0
    if block:
        yield b"".join(block)


@dataclass(frozen=True, slots=True)
class QuarantineJob:
    """The quarantined records of a file that only workers have copies of."""

    number: int
    file: InputFile
    records: pl.DataFrame
    """The records, with the columns that ``quarantine_lines`` needs."""
    folder: str
    """The folder for the lines that a worker writes, below the artifacts' folder or address."""
    home: Home

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"quarantine of {self.file.path}"

    @property
    def weight(self) -> int:
        """Bytes of the file."""
        return self.file.size

    def sent(self) -> QuarantineJob:
        """The job for another process, which may be on another machine."""
        return replace(self, home=self.home.sent())

    def done_by(self, at: AtWork) -> QuarantineMade:
        """Write the lines to a file, which gets its name once it is whole."""
        home = self.home.here()
        with handing_over(f"{self.folder}/{self.number}.quarantine", home) as file:
            for block in quarantine_blocks(self.file, self.records, home):
                at.check()
                file.add(block)
        return QuarantineMade(self.number, file.handed_over)

    def halves(self) -> Sequence[QuarantineJob]:
        """Nothing: each half would have to decompress the whole of a compressed file."""
        return ()

    def of_a_killer(self) -> QuarantineMade:
        """Raises ClusterFault: the run ends, because no quarantined record may be missing."""
        raise killer(self.name)


class QuarantineMade(NamedTuple):
    """The lines that a worker made of a file's quarantined records."""

    number: int
    file: HandedOver


class _Originals:
    """Originals by place. They are read once and ascending, whatever order they are asked for in.

    Records of one line share its bytes, and the paths of a tree come in an order of their own; what
    was read early is held until the last record that wants it has it.
    """

    def __init__(self, file: InputFile, path: str, records: pl.DataFrame, known: KnownFiles) -> None:
        self._file = file
        self._known = known
        self._path = path
        wanted = (
            records.filter(~pl.col("reason").str.split(":").list.first().is_in(WITHOUT_ORIGINAL))
            .group_by("offset", "length")
            .len("uses")
            .sort("offset", "length")
        )
        self._spans: list[tuple[int, int]] = wanted.select("offset", "length").rows()
        self._uses = iter(wanted["uses"])
        self._next_span = 0
        self._originals = read_originals(path, self._spans)
        self._stamp = self._whole_stamp() if self._spans else None
        self._held: dict[tuple[int, int], tuple[bytes, int]] = {}

    def _whole_stamp(self) -> Stamp:
        """The file's stamp, where its bytes are those that were converted; InputFault where they are not."""
        try:
            stamp = Stamp.of(self._path)
            digest = self._known.digest(self._path)
        except OSError as error:
            raise self._changed(str(error)) from error
        if digest != self._file.digest:
            raise self._changed("its content is another")
        return stamp

    def finish(self) -> None:
        """Nothing, or InputFault where the file was changed while it was read."""
        try:
            changed = self._stamp is not None and Stamp.of(self._path) != self._stamp
        except OSError as error:
            raise self._changed(str(error)) from error
        if changed:
            raise self._changed("it was changed meanwhile")

    def take(self, offset: int, length: int) -> bytes:
        """The bytes of one record."""
        span = (offset, length)
        while span not in self._held:
            try:
                data = next(self._originals)
            except (OSError, StopIteration, UserMistake, DamagedTable) as error:
                raise self._changed(str(error) or "it has become shorter") from error
            if len(data) != self._spans[self._next_span][1]:
                raise self._changed("it has become shorter")
            self._held[self._spans[self._next_span]] = (data, next(self._uses))
            self._next_span += 1
        data, uses = self._held.pop(span)
        if uses > 1:
            self._held[span] = (data, uses - 1)
        return data

    def _changed(self, what: str) -> InputFault:
        return InputFault(
            f"{self._file.path}: quarantined records cannot be read again ({what}). "
            "Run again; if the file was changed, it is converted anew."
        )
