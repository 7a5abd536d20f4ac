"""The types of the columns of a file of lines, as the front matter of a card names them.

``datasets`` takes types from the first 10 MB of a file. Where no message of these calls a tool, it dies on
the first that does. With types in the card it loads the folder, however rare a field is
(huggingface.co/docs/datasets, ``DatasetInfo.features``; seen in ``tests/loaders``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec
import polars as pl

from assay.core.schema import Conversation, MessageFields, message_with, roles_of
from assay.export.contract import (
    AtOnce,
    EveryRecord,
    Export,
    Json,
    MadeRows,
    Unit,
    columns_of,
    rows_of,
    rows_of_block,
)
from assay.export.kept import Held, Item, KeptRecords
from assay.export.pairs import Pair
from assay.storage.conversations import FieldKind, conversation_json

#: One value of each kind, as JSON.
_VALUES: Mapping[FieldKind, str] = {
    "text": '"a"',
    "flag": "true",
    "whole": "1",
    "number": "0.5",
    "json": "[]",
    "calls": '[{"id":"a","type":"function","function":{"name":"b","arguments":"{}"}}]',
    "calls_with_more": '[{"id":"a","type":"function","more":1,"function":{"name":"b","arguments":"{}"}}]',
}
_TEXTS = ("reasoning_content", "thinking", "reasoning", "tool_call_id", "name")
_TOOLS = '[{"type":"function","function":{"name":"b"}}]'


class OfRun(msgspec.Struct, frozen=True):
    """What the columns of a run's files depend on besides the exports."""

    attributes: tuple[str, ...]
    given: tuple[str, ...]
    held: Held


def record_features(export: Export[Item], run: OfRun) -> list[dict[str, Json]] | None:
    """The columns of the export's lines, each with its name and type; None for a table.

    They are those of a row of a record that holds all that any record of the run holds.
    """
    if isinstance(export.row, AtOnce):
        return _fields(rows_of_block(export, _block_of(_item(_messages(run.held), run), run)).lines)
    if isinstance(export.row, EveryRecord) or export.unit is not Unit.RECORD or columns_of(export, run.held):
        return None
    items = [_item(messages, run) for messages in (_messages(run.held), _messages(run.held, beside=False))]
    return _first_that_is_taken(rows_of(export, [item], run.held) for item in items)


def pair_features(export: Export[Pair], run: OfRun) -> list[dict[str, Json]] | None:
    """The same of an export of pairs."""
    if columns_of(export, run.held) is not None:
        return None
    tools = _TOOLS if run.held.tools and "tools" in export.holds else None
    pairs = []
    for beside in (True, False):
        *prompt, answer = _messages(run.held, beside=beside)
        other = message_with("assistant", "b", answer.fields)
        pairs.append(Pair(tuple(prompt), roles_of(prompt), answer, other, 0.5, tools, run.held))
    return _first_that_is_taken(rows_of(export, [pair], run.held) for pair in pairs)


def _first_that_is_taken(made: Iterable[MadeRows]) -> list[dict[str, Json]] | None:
    return next((_fields(one.lines) for one in made if one.rows), None)


def _item(messages: Conversation, run: OfRun) -> Item:
    """A record of these messages that lacks nothing."""
    scores = [(0.5,) * len(run.attributes)] * roles_of(messages).count("a")
    tools = _TOOLS if run.held.tools else None
    return Item(
        "a",
        1,
        0,
        roles_of(messages),
        messages,
        None,
        run.attributes,
        scores,
        "{}",
        None,
        tools,
        run.held,
        True,
    )


def _messages(held: Held, *, beside: bool = True) -> Conversation:
    """A conversation that holds everything, in its last message too.

    Some trainers take no call ``beside`` an answer's text; without, the last message has none.
    """
    values = {name: _VALUES[kind] for name, kind in held.fields.items()}
    calls = values.pop("tool_calls", None)
    texts = {name: "a" for name in _TEXTS if values.pop(name, None) is not None}
    carried = "{" + ",".join(f"{msgspec.json.encode(name).decode()}:{values[name]}" for name in values) + "}"
    fields = MessageFields(
        reasoning_content=texts.get("reasoning_content"),
        thinking=texts.get("thinking"),
        reasoning=texts.get("reasoning"),
        tool_call_id=texts.get("tool_call_id"),
        name=texts.get("name"),
        carried=carried if values else None,
    )
    answer = message_with("assistant", "a", replace(fields, tool_calls=calls if beside else None))
    if calls is None:
        return message_with("user", "a", fields), answer
    call = message_with("assistant", "", replace(fields, tool_calls=calls, content_is="null"))
    return message_with("user", "a", fields), call, message_with("tool", "a", fields), answer


def _block_of(item: Item, run: OfRun) -> KeptRecords:
    records = pl.DataFrame(
        {
            "row": [0],
            "line": [1],
            "part": [0],
            "messages": [conversation_json(item.messages).decode()],
            "rest": ["{}"],
            "tools": [item.tools],
            "reason": ["rule: a"],
        },
        schema_overrides={"row": pl.UInt32, "tools": pl.String},
    )
    given = msgspec.json.encode(dict.fromkeys(run.given, 0.5)).decode()
    scores = pl.DataFrame(
        {"row": [0], "turn": [0], **{name: [0.5] for name in run.attributes}, "given": [given]},
        schema_overrides={"row": pl.UInt32, **dict.fromkeys(run.attributes, pl.Float32)},
    )
    return KeptRecords("a", run.attributes, records, scores, True, run.given, run.held)


def _fields(lines: bytes) -> list[dict[str, Json]] | None:
    row = msgspec.json.decode(lines) if lines else None
    return _entries(row) if isinstance(row, dict) else None


def _entries(values: Mapping[str, Json]) -> list[dict[str, Json]]:
    return [{"name": name, **_type_of(value)} for name, value in values.items()]


def _type_of(value: Json) -> dict[str, Json]:
    if isinstance(value, list):
        merged: dict[str, Json] = {}
        for one in value:
            if isinstance(one, dict):
                merged |= {name: part for name, part in one.items() if merged.get(name) is None}
        return {"list": _entries(merged)}
    if isinstance(value, dict):
        return {"struct": _entries(value)}
    kinds = {bool: "bool", int: "int64", float: "float64", str: "string", type(None): "null"}
    return {"dtype": kinds[type(value)]}
