"""``oasst_trees``: OpenAssistant's trees, one per row; one record for every path from the root to a leaf.

``{"message_tree_id", "prompt": {"text", "role", "labels", "replies": [{…}]}}``, or the root itself
without ``prompt`` around it. Paths come in the tree's order, as ``part`` 0, 1, …. Human labels from 0 to
1 become labels of the assistant's messages (quality, toxicity, humor, creativity; times four,
rounded half to even). ``rest`` holds the row's other fields, and the leaf's ``message_id``.

Policy: a path of one message is dropped (``single_message_path``). There are no system messages. An assistant
first and the same role twice are kept as given. Empty or null content quarantines the paths through it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Raw, UnsetType

from assay.core.labels import OASST_ATTRIBUTES, label_from_oasst
from assay.core.schema import Message
from assay.read.formats.reading import SPEAKERS, Format, MissingField, Reading, Row, decoded, kind_of, rest_of

SINGLE_MESSAGE_PATH = "single_message_path"

_ENCODE = msgspec.json.Encoder().encode


class _Value(msgspec.Struct):
    value: float | None = None


class LabelLists(msgspec.Struct):
    """Labels as in Hugging Face's flat files."""

    name: list[str]
    value: list[float | None]


class _Node(msgspec.Struct):
    text: str | None
    role: str
    message_id: str | int | None = None
    labels: dict[str, Raw] | UnsetType | None = UNSET
    replies: "list[_Node]" = []  # noqa: UP037  (a struct of msgspec copies its defaults)


_DECODE_NODE = msgspec.json.Decoder(_Node).decode
_DECODE_VALUE = msgspec.json.Decoder(_Value).decode
_DECODE_LISTS = msgspec.json.Decoder(LabelLists).decode


def label_of(labels: dict[str, Raw] | UnsetType | None) -> str | None:
    """The label made of a message's human labels, as of a tree or of a flat file; None where it has none."""
    if not isinstance(labels, dict):
        return None
    if "name" in labels and "value" in labels:
        lists = _DECODE_LISTS(_ENCODE(labels))
        pairs = zip(lists.name, lists.value, strict=True)
        values = {name: value for name, value in pairs if value is not None}
    else:
        values = {}
        for name in OASST_ATTRIBUTES:
            if name in labels and (value := _DECODE_VALUE(labels[name]).value) is not None:
                values[name] = value
    return label_from_oasst(values)


def path_reading(steps: list[tuple[str, str | None, str | None]], rest: bytes | None) -> Reading:
    """The reading of a path, given as (OpenAssistant's role, text, label) from the root to a leaf."""
    messages: list[Message] = []
    labels: list[str | None] = []
    for number, (name, text, label) in enumerate(steps, 1):
        role = SPEAKERS.get(name.lower())
        if role is None:
            return Reading([], problem=f"unknown_speaker: message {number} is by {name!r}")
        if text is None:
            return Reading([], problem=f"empty_content: message {number} ({role}) is null")
        messages.append(Message(role, text))
        labels.append(label if role == "assistant" else None)
    return Reading(messages, labels, rest, drop=SINGLE_MESSAGE_PATH if len(messages) == 1 else None)


def read(row: Row) -> list[Reading]:
    """One reading per path."""
    if kind_of(row, "prompt") == "{":
        root, used = decoded(row, "prompt", _DECODE_NODE), frozenset({"prompt"})
    elif "replies" in row:
        root = decoded({"prompt": Raw(_ENCODE(row))}, "prompt", _DECODE_NODE)
        used = frozenset({"text", "role", "labels", "replies"})
    else:
        raise MissingField("prompt")
    readings: list[Reading] = []
    for path in _paths(root):
        added = {} if path[-1].message_id is None else {"message_id": Raw(_ENCODE(path[-1].message_id))}
        try:
            steps = [(node.role, node.text, label_of(node.labels)) for node in path]
        except (msgspec.DecodeError, ValueError) as error:
            readings.append(Reading([], problem=f"wrong_type: in 'labels': {error}"))
            continue
        readings.append(path_reading(steps, rest_of(row, used, **added)))
    return readings


def _paths(root: _Node) -> Iterator[list[_Node]]:
    """Yield every path to a leaf, depth first, in the order of the replies."""
    path: list[_Node] = []
    waiting = [(root, 0)]
    while waiting:
        node, depth = waiting.pop()
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
