"""CSV and TSV: every row with the line that it begins on; what is no row is in quarantine with its reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from converting import Outcome, converted_file, said
from hypothesis import example, given
from hypothesis import strategies as st
from stages import take_inventory

from assay.core.errors import UserMistake
from assay.export.quarantine import quarantine_lines
from assay.read.csv_rows import RowSplitter, cells_of
from assay.read.sources import RawRecords, sniff
from assay.storage.home import Home

HEADER = b"prompt,response\n"


def outcome_of(folder: Path, data: bytes, *, name: str = "rows.csv", **options: Any) -> Outcome:
    return converted_file(folder, data, name=name, **options)


def places(outcome: Outcome) -> list[tuple[int, str | None]]:
    return [(record["line"], record["reason"]) for record in outcome.records]


def test_a_row_has_the_line_that_it_begins_on(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfprompt,response\r\n"two\r\nlines","say ""yes"""\r\n\r\nWhere?,Left\r\n'
    outcome = outcome_of(tmp_path, data)
    assert [(record["line"], said(record)) for record in outcome.records] == [
        (2, [("user", "two\r\nlines"), ("assistant", 'say "yes"')]),
        (5, [("user", "Where?"), ("assistant", "Left")]),
    ]
    assert outcome.converted.lines == 5
    assert outcome.converted.complete


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.tsv", b'prompt\tresponse\nWhere, then?\t"Left\tor right"\n'),
        ("rows.csv", b'prompt;response\nWhere, then?;"Left\tor right"\n'),
        ("rows.csv", b'prompt\tresponse\nWhere, then?\t"Left\tor right"\n'),
        ("rows.csv", b'"prompt";"response"\n"Where, then?";"Left\tor right"\n'),
        ("rows.tsv", b'"prompt"\t"response"\n"Where, then?"\t"Left\tor right"\n'),
        ("rows.csv.gz", gzip.compress(b'prompt,response\n"Where, then?",Left\tor right', mtime=0)),
        ("rows.tsv.zst", zstandard.compress(b'prompt\tresponse\nWhere, then?\t"Left\tor right"')),
    ],
)
def test_the_delimiter_is_the_one_of_the_first_line(tmp_path: Path, name: str, data: bytes) -> None:
    (record,) = outcome_of(tmp_path, data, name=name).records
    assert said(record) == [("user", "Where, then?"), ("assistant", "Left\tor right")]


def test_what_is_no_row_is_in_quarantine_with_its_line_reason_and_bytes(tmp_path: Path) -> None:
    bad = [
        (b"a,b,c", "ragged_row: 3 cells, where the first line names 2"),
        (b"alone", "ragged_row: 1 cells, where the first line names 2"),
        (b'a,"b"c', "bad_quote: text follows the closing quote of cell 2"),
        (b"caf\xe9,b", "not_utf8: invalid continuation byte at byte 3 of the row"),
        (b'"two\nlines",b,c', "ragged_row: 3 cells, where the first line names 2"),
    ]
    data = HEADER + b"".join(each + b"\nWhere?,Left\n" for each, _ in bad)
    outcome = outcome_of(tmp_path, data)
    assert places(outcome)[::2] == [(2 + 2 * number, reason) for number, (_, reason) in enumerate(bad)]
    assert outcome.converted.counts.ok == len(bad)
    assert places(outcome)[-1] == (12, None), "the line end inside a cell was not counted"
    lost = pl.DataFrame([record for record in outcome.records if record["reason"]])
    entries = quarantine_lines(outcome.converted.inputs[0], lost, Home(tmp_path / "home"))
    originals = [json.loads(entry).get("original", "") for entry in entries]
    assert originals == ["a,b,c", "alone", 'a,"b"c', "", '"two\nlines",b,c']


def test_a_nul_and_a_long_cell_are_text(tmp_path: Path) -> None:
    long = "mill " * 60_000
    (record,) = outcome_of(tmp_path, HEADER + f"a\0b,{long}x\n".encode()).records
    assert said(record) == [("user", "a\0b"), ("assistant", f"{long}x")]


def test_a_row_that_is_too_long_is_not_held_and_the_next_one_is_read(tmp_path: Path) -> None:
    row = b'"' + b"no,row\n" * 600_000 + b'",b\n'
    (tmp_path / "rows.csv").write_bytes(HEADER + row + b"Where?,Left\n")
    raws = RawRecords(sniff(str(tmp_path / "rows.csv")), max_record_bytes=1000)
    tracemalloc.start()
    found = [(raw.line, raw.offset, raw.length, (raw.problem or "")[:13]) for raw in raws]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [
        (2, len(HEADER), len(row) - 1, "line_too_long"),
        (600_003, len(HEADER) + len(row), 11, ""),
    ]
    assert raws.lines == 600_003
    assert peak < 8 << 20


def test_a_quote_that_is_not_closed_is_a_file_that_is_cut_short(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, HEADER + b'Where?,Left\nWhere?,"Left\nWhere?,Right\n')
    assert [line for line, _ in places(outcome)] == [2, 3]
    assert outcome.records[1]["reason"].startswith("cut_short: a quote in this row is not closed")
    assert outcome.records[1]["length"] == len(b'Where?,"Left\nWhere?,Right\n')
    assert not outcome.converted.complete


@pytest.mark.slow
def test_of_a_gzip_that_ends_too_early_the_last_row_is_in_quarantine(tmp_path: Path) -> None:
    rows = HEADER + b"".join(b"question %d,answer %d\n" % (n, n * n) for n in range(9999))
    outcome = outcome_of(tmp_path, gzip.compress(rows, mtime=0)[:-9000], name="rows.csv.gz")
    assert outcome.converted.counts.quarantined == {"cut_short": 1}
    last, cut = outcome.records[-2:]
    assert cut["line"] == last["line"] + 1
    assert said(last)[1][1] == f"answer {(last['line'] - 2) ** 2}"
    assert not outcome.converted.complete


MESSAGES = [{"role": "user", "content": 'Say "a, b"'}, {"role": "assistant", "content": "a, b\n"}]


def written(*rows: list[str], **how: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, **how).writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize("column", ["messages", "prompt"])
def test_a_column_of_json_lists_of_messages_holds_messages(tmp_path: Path, column: str) -> None:
    given = MESSAGES if column == "messages" else MESSAGES[:1]
    rest = [] if column == "messages" else ["response"]
    data = written(["id", column, *rest], ["7", json.dumps(given), *(["a, b\n"] if rest else [])])
    (record,) = outcome_of(tmp_path, data).records
    assert said(record) == [("user", 'Say "a, b"'), ("assistant", "a, b\n")]
    assert json.loads(record["rest"]) == {"id": "7"}


def test_an_answer_that_looks_like_json_is_a_text(tmp_path: Path) -> None:
    answers = ['["a"]', "4", "null", '{"a": 1}', "true", '[{"role": "user"}, 3]']
    data = written(["prompt", "response"], *(["Answer in JSON", answer] for answer in answers))
    outcome = outcome_of(tmp_path, data)
    assert [said(record)[1][1] for record in outcome.records] == answers


def test_an_empty_cell_is_null_and_a_label_is_a_number(tmp_path: Path) -> None:
    data = written(["", "prompt", "response", "helpfulness", "source"], ["0", "q", "a", "3", ""])
    (record,) = outcome_of(tmp_path, data).records
    assert record["labels"] == [None, "helpfulness:3"]
    rest = json.loads(record["rest"])
    assert rest["column_1"] == "0"
    assert rest.get("source") is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"q,a\nq,a\n", "has no columns of a chat: its first line names q, a"),
        (b"id,note\n", "has no columns of a chat"),
        (b"messages\n\"[{'role': 'user'}]\"\n", "Its column messages must hold JSON lists of messages"),
        (b"prompt,response,prompt\n1,2,3\n", "two columns have the name 'prompt'"),
        (b"caf\xe9,response\n", "cannot be read .not_utf8"),
        (b"prompt,response\rq,a\r", "its lines end in CR alone"),
    ],
)
def test_a_file_whose_first_line_names_no_chat_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "rows.csv").write_bytes(data)
    for names in (["rows.csv"], ["*.csv"]):
        with pytest.raises(UserMistake, match=rf"^{tmp_path}/rows\.csv: .*{why}"):
            take_inventory([str(tmp_path / name) for name in names])


def test_a_table_beside_the_rows_of_a_folder_is_left_out_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"prompt": "q", "response": "a"}\n')
    (tmp_path / "stats.csv").write_bytes(b"name,count\na,1\n")
    heard: list[str] = []
    inventory = take_inventory([str(tmp_path)], say=heard.append)
    assert [file.path for file in inventory.files] == [str(tmp_path / "rows.jsonl")]
    (line,) = heard
    assert line.startswith(f"{tmp_path}/stats.csv: is not read, since it has no columns of a chat")
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(UserMistake, match="no file there holds rows of chats"):
        take_inventory([str(tmp_path)])


def test_a_file_of_the_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, HEADER).converted.lines == 1


def test_json_lines_under_the_name_of_a_csv_stay_json_lines(tmp_path: Path) -> None:
    (record,) = outcome_of(tmp_path, b'{"prompt": "q", "response": "a"}\n').records
    assert said(record) == [("user", "q"), ("assistant", "a")]


CELLS = st.text(st.sampled_from('a,;\t"\n\r\0é 1{['), max_size=5)


@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=3), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    bite=st.integers(1, 9),
)
@example(rows=[["a", '"']], delimiter=",", line_end="\n", quoting=csv.QUOTE_MINIMAL, bite=1)
def test_what_python_writes_is_read_back_whatever_the_size_of_a_read(
    rows: list[list[str]], delimiter: str, line_end: str, quoting: int, bite: int
) -> None:
    if "\r" in "".join(map("".join, rows)):
        quoting = csv.QUOTE_ALL  # Python leaves a carriage return unquoted otherwise
    data = written(*rows, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    splitter = RowSplitter(delimiter, offset=0, limit=1000)
    found = [row for at in range(0, len(data), bite) for row in splitter.feed(data[at : at + bite])]
    assert splitter.unfinished() is None
    assert [cells_of(row.data, delimiter) for row in found] == rows
    assert sum(row.lines for row in found) == data.count(b"\n")
    assert [data[row.offset :][: row.length] for row in found] == [row.data for row in found]
