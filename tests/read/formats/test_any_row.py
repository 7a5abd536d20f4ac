"""Whatever stands in the fields that formats look at: a row is read, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import row

from assay.read.formats import FORMATS, Misfits, MissingField, Reading, Unreadable, row_reader

KNOWN = sorted(row_reader().known)
TEXTS = [
    "",
    " ",
    "q",
    "[",
    "[]",
    '["q"]',
    '{"role": 1}',
    "\n\nHuman: q",
    "\n\nHuman: q\n\nAssistant: a",
    "<extra_id_0>System\n",
    "<extra_id_1>User\nq\n<extra_id_1>",
    "q\n<extra_id_1>Assistant\na\n<extra_id_1>User\nr",
    "<|im_start|>user\nq<|im_end|>",
    "<|start_header_id|>user<|end_header_id|>",
    "model_a",
    "VALUE_TO_TEXT",
]
INSIDE = ["role", "from", "content", "value", "text", "label", "labels", "body", "choices", "messages"]
INSIDE += ["response", "answer", "message", "output", "input", "human", "assistant", "score", "name", "type"]
INSIDE += ["replies", "Role", "Content", "parts", "user", "custom_instructions"]

scalars = st.none() | st.booleans() | st.sampled_from([0, -2, 3.5, float("nan")]) | st.sampled_from(TEXTS)
speakers = st.sampled_from(["user", "assistant", "system", "gpt", "Human", "narrator", "tool"])
messages = st.fixed_dictionaries({"role": speakers, "content": scalars}) | st.fixed_dictionaries(
    {"from": speakers, "value": scalars}
)
values = st.recursive(
    scalars | messages | st.lists(messages, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INSIDE), inner, max_size=3),
    max_leaves=6,
)
# Names match in any case.
rows = st.dictionaries(st.sampled_from([*KNOWN, *map(str.title, KNOWN)]), values, max_size=6)
by_format = st.sampled_from([(format, keys) for format in FORMATS.values() for keys in format.keys]).flatmap(
    lambda pair: st.tuples(st.fixed_dictionaries(dict.fromkeys(sorted(pair[1]), values)), rows).map(
        lambda both: {**both[1], **both[0]}
    )
)


def read(data: dict[str, Any], nearest: str, named: str | None) -> list[Reading]:
    """The row's records; one with the reason where the whole row cannot be read."""
    found, reader = row(json.dumps(data).encode()), row_reader(named=named)
    try:
        return reader.readings(found, FORMATS[nearest])
    except Unreadable as error:
        return [Reading([], problem=str(error))]
    except MissingField as error:
        reason = Misfits(reader, FORMATS).reason(found, read_as=nearest, missing=str(error))
        return [Reading([], problem=reason)]


@pytest.mark.slow
@settings(deadline=None, max_examples=500)
@given(by_format, st.sampled_from(sorted(FORMATS)), st.none() | st.sampled_from(sorted(FORMATS)))
def test_any_row_is_read_or_refused_with_a_reason(
    data: dict[str, Any], nearest: str, named: str | None
) -> None:
    for reading in read(data, nearest, named):
        assert reading.problem is None or ": " in reading.problem
        assert isinstance(json.loads(reading.rest or b"{}"), dict)
        assert len(reading.labels or reading.messages) == len(reading.messages)
        given_numbers = None if reading.more is None else reading.more.given
        assert len(given_numbers or reading.messages) == len(reading.messages)
