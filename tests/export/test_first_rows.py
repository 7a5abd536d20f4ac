"""What is shown of rows that could not be used: where, why, and a beginning that commands nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from converting import PAIR_LINE, converted_file, converted_paths
from stages import decide

from assay.export import RECORD_EXPORTS
from assay.export.first_rows import first_rows
from assay.select.rules import Rules
from assay.storage.home import Home
from assay.storage.manifests import Converted


def shown(folder: Path, converted: Converted) -> list[str]:
    return list(first_rows(converted, None, Home(folder / "home")))


def test_a_kept_row_has_the_reason_why_the_first_export_leaves_it_out(tmp_path: Path) -> None:
    messages = [{"role": role, "content": "x"} for role in ("user", "tool", "assistant")]
    data = [b"torn", json.dumps({"messages": messages}).encode(), PAIR_LINE]
    converted = converted_file(tmp_path, b"\n".join(data)).converted
    home = Home(tmp_path / "home")
    filtered = decide(converted, None, rules=Rules(), home=home)
    found = list(first_rows(converted, filtered, home, exports=[RECORD_EXPORTS["steerlm"]]))
    assert [row.partition("): ")[0].rpartition(":")[2] for row in found] == [
        "1 (not_json",
        "2 (tool_message",
        "3 (",
    ]
    assert "2 (): " in list(first_rows(converted, filtered, home))[1]


def test_the_first_rows_are_shown_by_place_reason_and_beginning(tmp_path: Path) -> None:
    data = b"id,prompt,answer\nx1,hello,world\nx2,a,b\nx3,c,d\n"
    outcome = converted_file(tmp_path, data)
    path = tmp_path / "rows.jsonl"
    assert shown(tmp_path, outcome.converted) == [
        f"{path}:1 (not_json): id,prompt,answer",
        f"{path}:2 (not_json): x1,hello,world",
        f"{path}:3 (not_json): x2,a,b",
    ]


def test_a_row_commands_no_terminal_and_is_short(tmp_path: Path) -> None:
    data = b"\x1b[2J\x1b]0;owned\x07 \xff\xfe \xe2\x80\xae" + b"x" * 50_000 + b"\n"
    (line,) = shown(tmp_path, converted_file(tmp_path, data).converted)
    text = line.partition("): ")[2]
    assert text.isprintable()
    assert "[2J" in text
    assert "\u202e" not in text
    assert len(text) == 102
    assert text.endswith("x …")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gzip", "parquet", "array"])
def test_rows_of_every_container_are_shown(tmp_path: Path, kind: str) -> None:
    path = tmp_path / {"gzip": "rows.jsonl.gz", "parquet": "rows.parquet", "array": "rows.json"}[kind]
    if kind == "gzip":
        path.write_bytes(gzip.compress(b'{"foo": 1}\n'))
    elif kind == "parquet":
        pl.DataFrame({"foo": [1]}).write_parquet(path)
    else:
        path.write_text('[{"foo": 1}]')
    (line,) = shown(tmp_path, converted_paths(tmp_path, str(path)).converted)
    assert line.startswith(f"{path}:1 (unknown_schema): {{")
    assert '"foo"' in line


def test_a_file_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    outcome = converted_file(tmp_path, b"a,b\n")
    (tmp_path / "rows.jsonl").unlink()
    assert shown(tmp_path, outcome.converted) == [
        f"{tmp_path / 'rows.jsonl'}:1 (not_json): (cannot be read again)"
    ]
