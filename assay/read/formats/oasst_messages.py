"""``oasst_messages``: OpenAssistant's flat messages; one record for every path from a root to a leaf.

``{"message_id", "parent_id", "text", "role", "labels": {"name", "value"}}``, one per line, in any order. A
tree lies in one file, but anywhere in it, so the file is read whole and not cut. A path has the line of its
leaf, and ``rest`` holds the leaf's other fields. Labels are made as in ``oasst_trees``.

Nothing is lost. A message whose parent is not in the file is quarantined as a record of its own
(``parent_missing``), and so is each message below it. So are messages that are their own ancestors
(``parent_cycle``), and a second message with the same id (``duplicate_message_id``).

Policy: a path of one message is dropped (``single_message_path``). There are no system messages. An assistant
first and the same role twice are kept as given. Empty or null content quarantines the paths through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from assay.read.formats.beside import reading_of
from assay.read.formats.names import Names
from assay.read.formats.oasst_trees import Step, found_on, step_of
from assay.read.formats.reading import (
    Format,
    MissingField,
    PatchedRow,
    PlacedReading,
    Reading,
    Row,
    Unreadable,
    decoded,
)
from assay.read.formats.renaming import KnownRow, known_row
from assay.read.sources import RawRecord

_KEYS = frozenset({"message_id", "parent_id", "text", "role"})
_USED = frozenset({"text", "role"})
_READ = _KEYS | {"labels"}
#: Fields of a message on the way to a leaf that the path shows.
_SHOWN = frozenset({"text", "role", "parent_id", "labels"})

_DECODE_ID = msgspec.json.Decoder(str | int | None).decode

_Id = str | int


class _Node(msgspec.Struct):
    raw: RawRecord
    known: KnownRow
    parent: _Id | None
    step: Step | None
    """None where the message cannot be read; where it stands on a path decides how its fault reads."""
    patched: tuple[str, ...]
    """The fields that hold numbers which JSON lacks."""
    has_replies: bool = False


def _node(raw: RawRecord, row: Row, names: Names) -> tuple[_Id, _Node]:
    known = known_row(row, names, _READ)
    patched = row.patched if isinstance(row, PatchedRow) else ()
    row = known.row
    identity = decoded(row, "message_id", _DECODE_ID)
    if identity is None:
        raise Unreadable("wrong_type: 'message_id' is null")
    parent = decoded(row, "parent_id", _DECODE_ID) if "parent_id" in row else None
    try:
        step = step_of(known, 1, names)
    except Unreadable:
        step = None
    return identity, _Node(raw._replace(data=b""), known, parent, step, patched)


def read_file(
    rows: Iterable[tuple[RawRecord, Row | str]],
    read_row: Callable[[Row, str], list[Reading]],
    names: Names,
) -> Iterator[PlacedReading]:
    """Yield a reading for every path and for every message on no path, in the order of the lines."""
    nodes: dict[_Id, _Node] = {}
    placed: list[PlacedReading] = []

    def refuse(raw: RawRecord, problem: str) -> None:
        placed.append(PlacedReading(raw._replace(data=b""), 0, Reading([], problem=problem)))

    for raw, row in rows:
        if isinstance(row, str):
            refuse(raw, row)
            continue
        try:
            identity, node = _node(raw, row, names)
        except Unreadable as error:
            refuse(raw, str(error))
        except MissingField as error:
            empty = raw._replace(data=b"")
            for part, reading in enumerate(read_row(row, str(error))):
                placed.append(PlacedReading(empty, part, reading))
        else:
            if identity in nodes:
                first = nodes[identity].raw.line
                refuse(raw, f"duplicate_message_id: {identity!r} is on line {first} too")
            else:
                nodes[identity] = node
    rooted = _rooted(nodes)
    for identity, node in nodes.items():
        if identity not in rooted:
            refuse(node.raw, _why_not_rooted(identity, nodes))
        elif not node.has_replies:
            placed.append(PlacedReading(node.raw, 0, _path_reading(node, nodes, names)))
    placed.sort(key=lambda each: each.raw.line)
    yield from placed


def _path_reading(leaf: _Node, nodes: dict[_Id, _Node], names: Names) -> Reading:
    """The reading of the path from the root to this message."""
    path = [leaf]
    while (parent := path[-1].parent) is not None:
        path.append(nodes[parent])
    path.reverse()
    left_out = {name for node in path for name in node.patched}
    for node in path[:-1]:
        left_out |= {node.known.original(name) for name in node.known.row if name not in _SHOWN}
        left_out |= node.known.carried.keys()
    try:
        steps: list[Step | str] = [
            node.step or step_of(node.known, number, names) for number, node in enumerate(path, 1)
        ]
    except Unreadable as error:
        return Reading([], problem=str(error))
    found = found_on(steps, _USED, {}, left_out)
    return reading_of(leaf.known.row, found, leaf.known.originals, leaf.known.carried)


def _rooted(nodes: dict[_Id, _Node]) -> set[_Id]:
    """The messages whose ancestors are all there, up to one without a parent. Sets ``has_replies`` too."""
    rooted: set[_Id] = set()
    refused: set[_Id] = set()
    for identity, node in nodes.items():
        if node.parent in nodes:
            nodes[node.parent].has_replies = True
        chain: dict[_Id, None] = {}
        at: _Id | None = identity
        while at is not None and at in nodes and at not in rooted and at not in refused and at not in chain:
            chain[at] = None
            at = nodes[at].parent
        (rooted if at is None or at in rooted else refused).update(chain)
    return rooted


def _why_not_rooted(identity: _Id, nodes: dict[_Id, _Node]) -> str:
    seen: set[_Id] = set()
    at = identity
    while at not in seen:
        seen.add(at)
        parent = nodes[at].parent
        if parent is None or parent not in nodes:
            whose = "its parent" if at == identity else "an ancestor"
            return f"parent_missing: {whose} {parent!r} is not in the file"
        at = parent
    return f"parent_cycle: {at!r} is its own ancestor"


def fits(row: Row) -> bool:
    """Always True: the names of the fields are enough."""
    return True


OASST_MESSAGES = Format("oasst_messages", (_KEYS,), fits, read=None, read_file=read_file)
