"""SteerLM's rows by polars are those of the function of one row, to the byte."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assay.core.labels import label_expression, label_from_scores
from assay.core.schema import ATTRIBUTES, Message, MessageFields, message_with, roles_of
from assay.export.contract import rows_of, rows_of_block
from assay.export.kept import KeptRecords, are_plain, items_of
from assay.export.steerlm import STEERLM
from assay.storage.conversations import conversation_json

FLOATS = st.floats(width=32, allow_nan=False) | st.sampled_from(
    [0.5, 1.5, 2.5, 3.5, 4.5, -0.0, -0.5, math.inf]
)
#: What could be taken for a part of the JSON around it, and what JSON escapes.
PIECES = st.sampled_from(
    [
        *'",:{}[]\\/',
        *("\n", "\x00", "\x1f", "\x7f", "\u2028", "é", "😀"),
        *('","', '"},{"role":"', '","content":"', '{"role":"user', "assistant", "user"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=6).map("".join)
FIELDS = st.sampled_from(
    [
        MessageFields(),
        MessageFields(),
        MessageFields(),
        MessageFields(name="me"),
        MessageFields(carried='{"weight":0}'),
        MessageFields(reasoning_content='","content":"'),
        MessageFields(content_is="null", tool_calls='[{"a":"b","content":"c"}]'),
    ]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Messages with at least one turn; some of them no SteerLM row can express."""
    roles = draw(st.lists(st.sampled_from(["user", "assistant", "tool", "system"]), max_size=4))
    found = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    for role in [*roles, "assistant"]:
        fields = draw(FIELDS)
        if role != "assistant":
            fields = replace(fields, tool_calls=None, content_is=None)
        content = "" if fields.content_is else draw(TEXTS)
        found.append(message_with(role, content, fields))
    return found if "a" in roles_of(found) else [*found, Message("assistant", "x")]


def block(records: Sequence[Sequence[Message]], values: Sequence[float], **columns: object) -> KeptRecords:
    """The records, each turn with the next of the values."""
    attributes = ("helpfulness", "reward", "quality")
    roles = [roles_of(messages) for messages in records]
    turns = [(row, turn) for row, letters in enumerate(roles) for turn in range(letters.count("a"))]
    scores = pl.DataFrame(turns, schema={"row": pl.UInt32, "turn": pl.UInt32}, orient="row").with_columns(
        pl.Series(name, [values[(n * 3 + k) % len(values)] for n in range(len(turns))], pl.Float32)
        for k, name in enumerate(attributes)
    )
    frame = pl.DataFrame(
        {
            "row": range(len(records)),
            "line": 1,
            "part": 0,
            "roles": roles,
            "messages": [conversation_json(messages).decode() for messages in records],
            "labels": None,
            "rest": None,
            "nemo_prompt": None,
            "tools": None,
            "desirable": None,
            **columns,
        },
        schema_overrides={"row": pl.UInt32, **dict.fromkeys(("nemo_prompt", "tools"), pl.String)},
    )
    return KeptRecords("a.jsonl", attributes, frame, scores.with_columns(given=pl.lit(None, pl.String)))


@pytest.mark.slow
@given(st.lists(conversations(), min_size=1, max_size=5), st.lists(FLOATS, min_size=1, max_size=9))
@example([[Message("user", '"},{"role":"'), Message("assistant", '","content":"')]], [1.0])
def test_rows_at_once_are_the_rows_one_by_one(records: list[list[Message]], values: list[float]) -> None:
    kept = block(records, values)
    assert rows_of_block(STEERLM, kept) == rows_of(STEERLM, items_of(kept))


@pytest.mark.slow
@given(conversations())
def test_a_record_counts_as_plain_only_where_each_message_is(messages: list[Message]) -> None:
    (plain,) = are_plain(block([messages], [1.0]).records)
    if plain:
        assert all(type(message) is Message for message in messages)


def test_records_of_every_kind_stand_in_their_order() -> None:
    said = [Message("user", "Hi"), Message("assistant", "Hello")]
    named = [Message("user", "Hi"), message_with("assistant", "Hello", MessageFields(name="me"))]
    tool = [*said, Message("tool", "4"), Message("assistant", "Four")]
    records = [said, named, tool, said, said, [Message("system", "Be"), *said]]
    kept = block(
        records,
        [1.0, 2.0, 3.0],
        nemo_prompt=[None, None, None, "<extra_id_1>User\nHi", None, None],
        tools=[None, None, None, None, '[{"type":"function"}]', None],
    )
    assert are_plain(kept.records).to_list() == [True, False, True, False, False, True]
    made = rows_of_block(STEERLM, kept)
    assert made == rows_of(STEERLM, items_of(kept))
    assert (made.rows, made.left_out, made.without) == (4, {"tool_message": 1, "tools": 1}, {"name": 1})
    assert [json.loads(row)["system"][:2] for row in made.lines.splitlines()] == ["A ", "A ", "A ", "Be"]


@given(st.lists(FLOATS, min_size=2, max_size=2), st.permutations(ATTRIBUTES))
def test_a_label_by_polars_is_the_label_of_its_scores(values: list[float], names: list[str]) -> None:
    attributes = names[:2]
    frame = pl.DataFrame([values], schema=dict.fromkeys(attributes, pl.Float32), orient="row")
    assert frame.select(label_expression(attributes)).item() == label_from_scores(attributes, frame.row(0))


def test_what_is_no_number_has_no_label() -> None:
    said = [Message("user", "Hi"), Message("assistant", "Hello")]
    with pytest.raises(ValueError, match="helpfulness is not a number"):
        rows_of_block(STEERLM, block([said], [math.nan]))


def test_scores_of_other_turns_are_refused() -> None:
    said = [Message("user", "Hi"), Message("assistant", "Hello")]
    kept = block([said, said], [1.0])
    with pytest.raises(ValueError, match="run out of step"):
        rows_of_block(STEERLM, kept._replace(scores=kept.scores.head(1)))
