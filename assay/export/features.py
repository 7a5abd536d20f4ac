"""The types of the columns of a file of lines, as the front matter of a card names them.

``datasets`` takes types from the first 10 MB of a file. Where no message of these calls a tool, it dies on
the first that does. With types in the card it loads the folder, however rare a field is
(huggingface.co/docs/datasets, ``DatasetInfo.features``; seen in ``tests/loaders``).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import polars as pl

from assay.core.schema import Conversation, Message, MessageFields, message_with, roles_of
from assay.export.contract import AtOnce, Export, Json, Unit, columns_of, rows_of, rows_of_block
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
    item = _full_item(run)
    if isinstance(export.row, AtOnce):
        return _fields(rows_of_block(export, _block_of(item, run)).lines)
    if callable(export.row) and export.unit is Unit.RECORD and columns_of(export, run.held) is None:
        return _fields(rows_of(export, [item], run.held).lines)
    return None


def pair_features(export: Export[Pair], run: OfRun) -> list[dict[str, Json]] | None:
    """The same of an export of pairs."""
    if columns_of(export, run.held) is not None:
        return None
    *prompt, answer = _full_messages(run.held)
    tools = _TOOLS if run.held.tools and "tools" in export.holds else None
    pair = Pair(tuple(prompt), roles_of(prompt), answer, Message("assistant", "b"), 0.5, tools, run.held)
    return _fields(rows_of(export, [pair], run.held).lines)


def _full_item(run: OfRun) -> Item:
    """A record that no trainer refuses for its shape, and whose messages hold everything."""
    messages = _full_messages(run.held)
    scores = [(0.5,) * len(run.attributes)]
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


def _full_messages(held: Held) -> Conversation:
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
    told = message_with("user", "a", fields)
    if calls is None:
        return told, Message("assistant", "a")
    call = message_with("assistant", "", MessageFields(tool_calls=calls, content_is="null"))
    return told, call, Message("tool", "a"), Message("assistant", "a")


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
