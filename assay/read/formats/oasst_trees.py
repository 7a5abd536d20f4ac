"""``oasst_trees``: OpenAssistant's trees, one per row; one record for every path from the root to a leaf.

``{"message_tree_id", "prompt": {"text", "role", "labels", "replies": [{…}]}}``, or the root itself
without ``prompt`` around it. Paths come in the tree's order, as ``part`` 0, 1, …. Human labels from 0 to
1 become labels of the assistant's messages (quality, toxicity, humor, creativity; times four,
rounded half to even). ``rest`` holds the row's other fields, and the leaf's ``message_id``. Other fields of
the messages are left out. A message that cannot be read costs the paths through it, not the tree.

Policy: a path of one message is dropped (``single_message_path``). There are no system messages. An assistant
first and the same role twice are kept as given. Empty or null content quarantines the paths through it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import msgspec
from msgspec import Raw

from assay.core.labels import OASST_ATTRIBUTES, label_from_oasst
from assay.core.schema import ATTRIBUTES, Message
from assay.read.formats.names import Names
from assay.read.formats.reading import (
    Draft,
    Format,
    MissingField,
    Row,
    Unreadable,
    decoded,
    kind_of,
    unknown_speaker,
)
from assay.read.formats.renaming import KnownRow, known_row

SINGLE_MESSAGE_PATH = "single_message_path"

_ENCODE = msgspec.json.Encoder().encode


class _Value(msgspec.Struct):
    value: float | None = None


class LabelLists(msgspec.Struct):
    """Labels as in Hugging Face's flat files."""

    name: list[str]
    value: list[float | None]


class Step(NamedTuple):
    """One message of a path, from the root to a leaf."""

    message: Message
    label: str | None
    values: Mapping[str, float] | None
    """What the label is made of: 0 to 4, not rounded."""
    left_out: tuple[str, ...] = ()
    """The field of labels, where it holds more than ``values``."""


class _Node(NamedTuple):
    """A message of a tree."""

    step: Step | str
    """Or why it cannot be read."""
    replies: list[Raw]
    message_id: Mapping[str, Raw]
    """Under the name that the input gives it; empty where it has none."""
    others: Collection[str]
    """Names of fields that a path does not hold."""


_DECODE_ROW = msgspec.json.Decoder(Row).decode
_DECODE_REPLIES = msgspec.json.Decoder(list[Raw] | None).decode
_DECODE_NAME = msgspec.json.Decoder(str).decode
_DECODE_TEXT = msgspec.json.Decoder(str | None).decode
_DECODE_LABELS = msgspec.json.Decoder(dict[str, Raw] | None).decode
_DECODE_VALUE = msgspec.json.Decoder(_Value).decode
_DECODE_LISTS = msgspec.json.Decoder(LabelLists).decode
_READ = frozenset({"text", "role", "labels", "replies", "message_id"})


def values_of(labels: dict[str, Raw] | None) -> dict[str, float] | None:
    """The values from 0 to 1 in the labels of a tree's message or of a flat file; None where it has none."""
    if labels is None:
        return None
    if "name" in labels and "value" in labels:
        lists = _DECODE_LISTS(_ENCODE(labels))
        pairs = zip(lists.name, lists.value, strict=True)
        return {name: value for name, value in pairs if value is not None}
    found: dict[str, float] = {}
    for name, raw in labels.items():
        value = _DECODE_VALUE(raw).value if name in OASST_ATTRIBUTES or bytes(raw)[:1] == b"{" else None
        if value is not None:
            found[name] = value
    return found


def step_of(known: KnownRow, number: int, names: Names) -> Step:
    """The message in a row or a node, which is the path's of this number; Unreadable where it is none."""
    row = known.row
    name = decoded(row, "role", _DECODE_NAME)
    role = names.roles.get(name.strip().lower())
    if role is None:
        raise unknown_speaker(name, number, after=None if number % 2 else "user")
    text = decoded(row, "text", _DECODE_TEXT)
    if text is None:
        raise Unreadable(f"empty_content: message {number} ({role}) is null")
    try:
        values = values_of(decoded(row, "labels", _DECODE_LABELS)) if "labels" in row else None
    except (msgspec.DecodeError, ValueError) as error:
        raise Unreadable(f"wrong_type: in 'labels': {error}") from error
    labels = (known.original("labels"),)
    if role != "assistant" or values is None:
        return Step(Message(role, text), None, None, labels if values else ())
    exact = {name: values[name] * 4 for name in ATTRIBUTES if name in values}
    more = labels if len(values) > len(exact) else ()
    return Step(Message(role, text), label_from_oasst(values), exact, more)


def found_on(
    steps: list[Step | str], used: Collection[str], added: Mapping[str, Raw], left_out: Collection[str]
) -> Draft:
    """The record of a path; one that cannot be read where one of its messages cannot."""
    readable = [step for step in steps if isinstance(step, Step)]
    if len(readable) < len(steps):
        return Draft([], problem=next(step for step in steps if isinstance(step, str)))
    return Draft(
        [step.message for step in readable],
        used,
        labels=[step.label for step in readable],
        every_given=[step.values for step in readable],
        added=added,
        drop=SINGLE_MESSAGE_PATH if len(readable) == 1 else None,
        left_out={*left_out, *(name for step in readable for name in step.left_out)},
    )


def read(row: Row, names: Names) -> list[Draft]:
    """One record per path."""
    if kind_of(row, "prompt") == "{":
        root, used = row["prompt"], frozenset({"prompt"})
    elif "replies" in row:
        root, used = Raw(_ENCODE(row)), _READ | row.keys()
    else:
        raise MissingField("prompt")
    found: list[Draft] = []
    for path in _paths(root, names):
        leaf = path[-1]
        left_out = {name for node in path for name in node.others}
        left_out |= {name for node in path[:-1] for name in node.message_id}
        found.append(found_on([node.step for node in path], used, leaf.message_id, left_out))
    return found


def _node(raw: Raw, number: int, names: Names) -> _Node:
    """The message of a tree at this depth, from 1. What cannot be read of it is its step."""
    try:
        known = known_row(_DECODE_ROW(raw), names, _READ)
    except msgspec.DecodeError as error:
        return _Node(f"wrong_type: message {number} is no object: {error}", [], {}, ())
    row = known.row
    others = [*known.carried, *(known.original(name) for name in row if name not in _READ)]
    message_id = {known.original(name): row[name] for name in row if name == "message_id"}
    try:
        replies = (decoded(row, "replies", _DECODE_REPLIES) if "replies" in row else None) or []
        return _Node(step_of(known, number, names), replies, message_id, others)
    except MissingField as error:
        problem = f"missing_field: message {number} has no {str(error)!r}"
    except Unreadable as error:
        problem = str(error)
    try:
        replies = _DECODE_REPLIES(row["replies"]) or [] if "replies" in row else []
    except msgspec.DecodeError:
        replies = []
    return _Node(problem, replies, message_id, others)


def _paths(root: Raw, names: Names) -> Iterator[list[_Node]]:
    """Yield every path to a leaf, depth first, in the order of the replies."""
    path: list[_Node] = []
    waiting = [(root, 0)]
    while waiting:
        raw, depth = waiting.pop()
        node = _node(raw, depth + 1, names)
        path[depth:] = [node]
        if node.replies:
            waiting.extend((reply, depth + 1) for reply in reversed(node.replies))
        else:
            yield list(path)


def fits(row: Row) -> bool:
    """Whether the prompt is an object, or the row is a message with its replies."""
    return kind_of(row, "prompt") == "{" or kind_of(row, "replies") == "["


OASST_TREES = Format(
    "oasst_trees",
    (frozenset({"prompt", "message_tree_id"}), frozenset({"text", "role", "replies"})),
    fits,
    read,
)
