"""The values that rules name, for the scored records of each piece.

Pieces are gone through once, or again where a function needs more than one piece:

1. Each piece's columns are computed, by workers if that takes long (``of_pieces``). The rows that group
   functions need go to a bucket by the group's key.
2. Each bucket holds whole groups; the functions' results go back to a bucket by piece.
3. Values of percentiles are counted, piece by piece.
4. Each piece's frames are now complete, and the caller decides by them, piece by piece.

What is held is a piece, a bucket of about a million turns, and the counts of percentiles. The rest waits in a
folder that is gone afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl

from assay.core.text import counted
from assay.select.by_key import Groups, RowSides
from assay.select.expressions import (
    EveryTurn,
    Expression,
    GivenPair,
    InGroup,
    NamedColumn,
    OverTurns,
    Percentile,
    Predicate,
    parts,
)
from assay.select.frames import Dataset, Frames, ToMeasure
from assay.select.groups import GROUP_SIZE, LAST
from assay.select.of_pieces import frames_of_pieces
from assay.select.percentiles import FEWEST_VALUES, Distribution
from assay.select.presence import Presence
from assay.storage.scratch import own_folder
from assay.storage.stage import RunContext


class Measured(NamedTuple):
    """The frames, and what a person should know of what was measured."""

    frames: Iterator[Frames]
    """Of each piece, in order. To be gone through once."""
    notes: Callable[[], tuple[str, ...]]
    """Sentences without a full stop, once the frames are gone through."""
    absent: Callable[[], Mapping[NamedColumn, str]]
    """Those of the notes that name what no record has."""


@contextmanager
def measured(data: Dataset, context: RunContext | None = None) -> Iterator[Measured]:
    """Yield the frames of all pieces with all that is wanted. The workers of ``context`` may compute columns.

    AssayError where scores are not those of the piece's turns, or a file is damaged.
    """
    wanted = data.wanted
    percentiles = [Distribution(percentile) for percentile in wanted.of_type(Percentile)]
    presence = Presence(data)
    with ExitStack() as stack:
        pieces = stack.enter_context(frames_of_pieces(data, context or RunContext(data.home)))
        if not wanted.has_groups and not wanted.has_pairs and not percentiles:
            yield Measured(_frames_of(pieces, data, presence), presence.notes, presence.absent)
            return
        place = data.home.artifacts / "filter"
        place.mkdir(parents=True, exist_ok=True)
        waiting = _Waiting(stack.enter_context(own_folder(place)), len(data.converted.pieces))
        groups = Groups(data, waiting.folder) if wanted.has_groups else None
        sides = RowSides(data, waiting.folder) if wanted.has_pairs else None
        for number, frames in enumerate(_frames_of(pieces, data, presence)):
            waiting.put(number, frames)
            for by_key in (groups, sides):
                if by_key is not None:
                    by_key.add(number, frames)
        notes = [
            *presence.notes(),
            *(note for one in (groups, sides) if one is not None for note in one.compare()),
        ]
        for distribution in percentiles:
            for number in range(waiting.count):
                frames = _with_sides(_with_groups(waiting.get(number), groups, number, wanted), sides, number)
                distribution.add(_compared_by(distribution.percentile, frames, wanted))
            distribution.close()
            notes += _few_values(distribution)
        yield Measured(
            _whole(waiting, groups, sides, percentiles, wanted), lambda: tuple(notes), presence.absent
        )


def _whole(
    waiting: _Waiting,
    groups: Groups | None,
    sides: RowSides | None,
    percentiles: Sequence[Distribution],
    wanted: ToMeasure,
) -> Iterator[Frames]:
    for number in range(waiting.count):
        frames = _with_sides(_with_groups(waiting.get(number), groups, number, wanted), sides, number)
        for distribution in percentiles:
            percentile = distribution.percentile
            values = distribution.of(_compared_by(percentile, frames, wanted))
            if wanted.by_turn and percentile.of_turns:
                turns = frames.turns.with_columns(values)
                last = turns.filter(LAST)[percentile.measured]
                frames = frames._replace(turns=turns, records=frames.records.with_columns(last))
            else:
                frames = frames._replace(records=frames.records.with_columns(values))
        yield _with_every_turn(frames, wanted)


def _compared_by(percentile: Percentile, frames: Frames, wanted: ToMeasure) -> pl.DataFrame:
    """The frame whose rows a percentile compares."""
    if wanted.by_turn and percentile.of_turns:
        return beside_turns(frames, [operand.measured for operand in percentile.operands])
    return frames.records


def beside_turns(frames: Frames, names: Sequence[str]) -> pl.DataFrame:
    """The turns, with those of the named values that their records have beside them."""
    of_records = [name for name in names if name not in frames.turns.columns]
    if not of_records:
        return frames.turns
    return frames.turns.join(
        frames.records.select("row", *of_records), on="row", how="left", maintain_order="left"
    )


def _few_values(distribution: Distribution) -> Iterator[str]:
    few, percentile = distribution.smallest, distribution.percentile
    if few < FEWEST_VALUES:
        where = f" where {percentile.by} is one and the same" if percentile.by else ""
        yield f"`{percentile}` says little of so few: {counted(few, 'values')}{where}"


def _frames_of(pieces: Iterator[Frames], data: Dataset, presence: Presence) -> Iterator[Frames]:
    """Yield each piece's frames, with the columns that are made from one record's turns added."""
    for frames in pieces:
        presence.add(frames)
        first = [one for one in data.wanted.of_type(OverTurns) if not _needs_groups(one)]
        frames = _with_over_turns(frames, first)
        if not (data.wanted.has_groups or data.wanted.has_pairs or data.wanted.of_type(Percentile)):
            frames = _with_every_turn(frames, data.wanted)
        yield frames


def _needs_groups(expression: Expression) -> bool:
    return any(
        isinstance(part, InGroup) or (isinstance(part, NamedColumn) and part.name == GROUP_SIZE)
        for part in parts(expression)
    )


def _with_over_turns(frames: Frames, functions: Sequence[OverTurns]) -> Frames:
    if not functions:
        return frames
    made = frames.turns.group_by("row", maintain_order=True).agg([one.over_turns() for one in functions])
    return frames._replace(records=frames.records.hstack(made.drop("row")))


def _with_every_turn(frames: Frames, wanted: ToMeasure) -> Frames:
    functions = wanted.of_type(EveryTurn)
    if not functions:
        return frames
    turns = beside_turns(frames, list(dict.fromkeys(chain.from_iterable(map(named_in, functions)))))
    made = turns.group_by("row", maintain_order=True).agg([one.over_turns() for one in functions])
    return frames._replace(records=frames.records.hstack(made.drop("row")))


def named_in(predicate: Predicate) -> Iterator[str]:
    """Yield the columns that a frame must have so that the predicate can be evaluated on it.

    For ``EveryTurn`` they are those that its operand needs, in a frame of turns.
    """
    for operand in predicate.operands:
        if isinstance(operand, NamedColumn | OverTurns | InGroup | Percentile | GivenPair | EveryTurn):
            yield operand.measured
        else:
            yield from named_in(operand)


def _with_groups(frames: Frames, groups: Groups | None, number: int, wanted: ToMeasure) -> Frames:
    """The frames with what group functions come to, and what is made of that."""
    if groups is None:
        return frames
    found = groups.of_piece(number)
    last = frames.turns[LAST]
    of_turns = [one for one in groups.values if one.of_turns]
    turns = frames.turns.with_columns([found[one.measured] for one in of_turns])
    records = frames.records.with_columns([found[one.measured].filter(last) for one in groups.values])
    later = [one for one in wanted.of_type(OverTurns) if _needs_groups(one)]
    return _with_over_turns(frames._replace(turns=turns, records=records), later)


def _with_sides(frames: Frames, sides: RowSides | None, number: int) -> Frames:
    """The frames with what the sides of rows come to."""
    if sides is None:
        return frames
    found = sides.of_piece(number)
    return frames._replace(records=frames.records.with_columns(found[one.measured] for one in sides.pairs))


class _Waiting:
    """Frames of pieces that wait on the disk."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count

    def put(self, number: int, frames: Frames) -> None:
        """Write a piece's frames."""
        for name, frame in zip(Frames._fields, frames, strict=True):
            frame.write_ipc(self._path(number, name), compression="lz4")

    def get(self, number: int) -> Frames:
        """Read a piece's frames."""
        return Frames(*(pl.read_ipc(self._path(number, name)) for name in Frames._fields))

    def _path(self, number: int, name: str) -> Path:
        return self.folder / f"{number}.{name}.arrow"
