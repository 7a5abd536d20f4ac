"""As many records come out as rows were written, whatever they hold and whatever holds them.

Who counts what was read cannot see rows that were never read: here the writer counts.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable

import polars as pl
import pytest
import zstandard
from converting import converted_file
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
good = st.tuples(texts.filter(str.strip), texts.filter(str.strip))
#: What stands in a place of a row and is none: each is a record in quarantine.
bad = st.sampled_from(
    ["{", "null", "7", '"text"', "[]", "{}", '{"messages": 1}', '{"messages": [{"role": "user"', "\ufeffx"]
)
Row = tuple[str, str] | str
rows_of_lines = st.lists(good | bad, min_size=1, max_size=25).filter(lambda rows: isinstance(rows[0], tuple))


def as_json(row: Row) -> str:
    if isinstance(row, str):
        return row
    question, answer = row
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}, ensure_ascii=len(question) % 2 == 0)


def lines(rows: list[Row], ending: str, blank: int) -> bytes:
    """The rows as lines, with a blank line behind every ``blank`` of them."""
    written = []
    for number, row in enumerate(rows, 1):
        written.append(as_json(row) + ending)
        if number % blank == 0:
            written.append(ending)
    return "".join(written).encode()


def members(data: bytes, packed: Callable[[bytes], bytes], size: int) -> bytes:
    """The data, packed in pieces of that many bytes, one behind the other."""
    return b"".join(packed(data[start : start + size]) for start in range(0, len(data), size))


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@settings(max_examples=60, deadline=None)
@given(
    rows=rows_of_lines,
    ending=st.sampled_from(["\n", "\r\n"]),
    is_open=st.booleans(),
    blank=st.integers(1, 30),
    packing=st.sampled_from(sorted(PACKED)),
    size=st.integers(40, 4000),
    shard_bytes=st.integers(1, 4000),
)
def test_every_line_that_was_written_is_a_record(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    ending: str,
    is_open: bool,
    blank: int,
    packing: str,
    size: int,
    shard_bytes: int,
) -> None:
    data = lines(rows, ending, blank)
    if is_open:
        data = data.rstrip(b"\r\n")
    outcome = converted_file(
        tmp_path_factory.mktemp("lines"),
        members(data, PACKED[packing], size),
        name=f"a.jsonl{packing}",
        format="messages",
        shard_bytes=shard_bytes,
    )
    assert outcome.converted.counts.read == len(rows) == len(outcome.records)
    assert outcome.converted.counts.ok == sum(isinstance(row, tuple) for row in rows)
    places = {(record["line"], record["part"]) for record in outcome.records}
    assert len(places) == len(rows)


def as_array(rows: list[tuple[str, str]]) -> bytes:
    return f"[{', '.join(map(as_json, rows))}]".encode()


def as_parquet(rows: list[tuple[str, str]]) -> bytes:
    file = io.BytesIO()
    pl.DataFrame({"prompt": [q for q, _ in rows], "response": [a for _, a in rows]}).write_parquet(
        file, row_group_size=3
    )
    return file.getvalue()


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    file = io.StringIO(newline="")
    written = csv.writer(file, quoting=csv.QUOTE_ALL)
    written.writerow(["prompt", "response"])
    written.writerows(rows)
    return file.getvalue().encode()


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(good, min_size=1, max_size=25),
    name=st.sampled_from(["a.json", "a.parquet", "a.csv"]),
    shard_bytes=st.integers(1, 4000),
)
def test_every_element_and_every_row_of_a_table_that_was_written_is_a_record(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], name: str, shard_bytes: int
) -> None:
    write = {"a.json": as_array, "a.parquet": as_parquet, "a.csv": as_csv}[name]
    outcome = converted_file(
        tmp_path_factory.mktemp("tables"), write(rows), name=name, shard_bytes=shard_bytes
    )
    assert outcome.converted.counts.read == len(rows) == len(outcome.records)
