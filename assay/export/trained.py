"""The file of one export while it is written, and the files that its trainer needs beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Generic

from assay.core.errors import AssayError
from assay.export.contract import AtOnce, Companion, EveryRecord, Export, MadeRows, Of, Outcome, columns_of
from assay.export.files import LinesFile, RankedLines, TableFile, write_file
from assay.export.kept import NOTHING, Held, Item
from assay.export.numbered import NumberedLines, NumberedTables
from assay.export.pairs import Pair
from assay.export.splits import TRAIN, file_of_side
from assay.storage.private import FOLDER
from assay.storage.run_manifest import RUN_MANIFEST, ExportedFile, Written


class TrainerFile(Generic[Of]):
    """An export's file while it is written."""

    def __init__(
        self,
        export: Export[Of],
        staging: Path,
        attributes: tuple[str, ...],
        stack: ExitStack,
        *,
        sides: Sequence[str] = (),
        ranked: bool = False,
        given: tuple[str, ...] = (),
        held: Held = NOTHING,
        shard_bytes: int | None = None,
    ) -> None:
        """The file, or one for each of the ``sides`` of a split. A table of every record is never split.

        ``ranked`` lines stand in the order of the ranks that they are written with. With ``shard_bytes``
        each is numbered files of at most so many bytes.
        """
        self.export = export
        self._held = held
        self._rows = 0
        self._left_out: Counter[str] = Counter()
        self._without: Counter[str] = Counter()
        whole = not sides or self.takes_every_record or self.takes_what_was_dropped
        self._names = (
            {"": export.file} if whole else {side: file_of_side(export.file, side) for side in sides}
        )
        columns = columns_of(export, held)
        if isinstance(export.row, EveryRecord):
            columns = export.row.columns(attributes, given, held)
        self._is_numbered = shard_bytes is not None
        self._shards: dict[str, tuple[str, ...]] = {}
        self._files: dict[str, LinesFile | NumberedLines | TableFile | NumberedTables] = {}
        self._ranked: dict[str, RankedLines] = {}
        for side, name in self._names.items():
            path = staging / _checked(name, export.name)
            path.parent.mkdir(mode=FOLDER, parents=True, exist_ok=True)
            if columns is None:
                lines: LinesFile | NumberedLines = (
                    LinesFile(path) if shard_bytes is None else NumberedLines(path, shard_bytes)
                )
                stack.enter_context(lines)
                self._files[side] = lines
                if ranked:
                    self._ranked[side] = stack.enter_context(RankedLines(path))
            elif ranked and not whole:
                raise ValueError(f"{export.name} is a table, and lines alone can be ranked")
            elif shard_bytes is not None:
                self._files[side] = NumberedTables(path, columns, shard_bytes)
            else:
                self._files[side] = TableFile(path, columns)

    @property
    def takes_every_record(self) -> bool:
        """Whether the file also holds what is not kept."""
        return isinstance(self.export.row, EveryRecord)

    @property
    def is_numbered_table(self) -> bool:
        """Whether it is a table in several files."""
        return any(isinstance(file, NumberedTables) for file in self._files.values())

    @property
    def takes_what_was_dropped(self) -> bool:
        """Whether the file holds dropped records, and none that is kept."""
        row = self.export.row
        return isinstance(row, AtOnce) and row.outcome is Outcome.DROPPED

    def write(self, rows: MadeRows, side: str = "", rank: int | None = None) -> None:
        """Append rows that the export made, to the file of a side."""
        self._rows += rows.rows
        self._left_out.update(rows.left_out)
        self._without.update(rows.without)
        side = side if side in self._files else ""
        file = self._files[side]
        if side in self._ranked:
            self._ranked[side].write(rows.lines, rows.rows, rank or 0)
        elif isinstance(file, LinesFile | NumberedLines):
            file.write(rows.lines, rows.rows)
        elif rows.table is not None:
            file.add(rows.table)

    def finish(self) -> dict[str, ExportedFile]:
        """The files by their names, once all is written."""
        found: dict[str, ExportedFile] = {}
        for side, file in self._files.items():
            made = self._finished(side, file)
            if self._is_numbered:
                self._shards[side or TRAIN] = tuple(made)
                self._names[side] = next(iter(made))
            found |= made
        return found

    def _finished(
        self, side: str, file: LinesFile | NumberedLines | TableFile | NumberedTables
    ) -> dict[str, ExportedFile]:
        name = self._names[side]
        if isinstance(file, LinesFile | NumberedLines) and side in self._ranked:
            for lines, rows in self._ranked[side].ranked():
                file.write(lines, rows)
        if isinstance(file, NumberedLines | NumberedTables):
            return file.finish(name)
        return {name: file.finish() if isinstance(file, TableFile) else file.exported}

    @property
    def written(self) -> Written:
        """What was written. ``finish`` names numbered files, which have no names before."""
        sides = {side: name for side, name in self._names.items() if side}
        first = next(iter(self._names.values()))
        return Written(
            first,
            self._rows,
            dict(sorted(self._left_out.items())),
            dict(sorted(self._without.items())),
            sides,
            self._held.tools and "tools" in self.export.holds,
            self._shards,
        )


def companions(
    trained: Sequence[TrainerFile[Item] | TrainerFile[Pair]], staging: Path, *, taken: set[str]
) -> dict[str, ExportedFile]:
    """The files beside the exports' data, written; AssayError where one has no name of its own."""
    sharing: dict[Companion, dict[str, Written]] = {}
    for one in trained:
        for companion in one.export.companions:
            sharing.setdefault(companion, {})[one.export.name] = one.written
    files: dict[str, ExportedFile] = {}
    for companion, written in sharing.items():
        name = _checked(companion.file, next(iter(written)))
        if name in taken or name in files:
            raise AssayError(f"export {next(iter(written))}: {name!r} is no name for a file of it")
        files[name] = write_file(staging / name, companion.content(written))
    return files


def _checked(name: str, export: str) -> str:
    """The name, where a file of the export may have it; AssayError where not."""
    parts = PurePosixPath(name).parts
    if not parts or len(parts) > 2 or name != "/".join(parts) or {*parts} & {"..", "/", RUN_MANIFEST}:
        raise AssayError(f"export {export}: {name!r} is no name for a file of it")
    return name
