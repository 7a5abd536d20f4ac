"""The samples are what their README says: small, and broken exactly where it says so."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT

SAMPLES = ROOT / "samples"
MAX_FILE_BYTES = 80_000


def _lines(name: str) -> list[bytes]:
    data = (SAMPLES / name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).removesuffix(b"\n").split(b"\n")


def _contents(row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"]]


def _fault_of_support(line: bytes) -> str | None:
    try:
        contents = _contents(json.loads(line.decode()))
    except UnicodeDecodeError:
        return "not UTF-8"
    except json.JSONDecodeError:
        return "no JSON"
    if "" in contents:
        return "empty"
    return "forged" if any("<|im_end|>" in content for content in contents) else None


def _lack_of(*keys: str) -> Callable[[bytes], str | None]:
    def fault(line: bytes) -> str | None:
        return next((f"no {key}" for key in keys if key not in json.loads(line)), None)

    return fault


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_every_file_is_small(path: Path) -> None:
    assert path.stat().st_size < MAX_FILE_BYTES


@pytest.mark.parametrize(
    ("name", "fault_of", "faults"),
    [
        (
            "support.messages.jsonl",
            _fault_of_support,
            {10: "no JSON", 16: "empty", 23: "not UTF-8", 28: "forged"},
        ),
        ("archive.messages.jsonl.gz", _fault_of_support, {}),
        ("tutor.alpaca.jsonl", _lack_of("instruction", "input", "output"), {19: "no output"}),
        ("answers.preference.jsonl", _lack_of("chosen", "rejected"), {12: "no rejected"}),
    ],
)
def test_rows_are_broken_where_the_readme_says(
    name: str, fault_of: Callable[[bytes], str | None], faults: dict[int, str]
) -> None:
    found = {number: fault_of(line) for number, line in enumerate(_lines(name), start=1)}
    assert {number: fault for number, fault in found.items() if fault} == faults
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(map(int, re.findall(rf"`{re.escape(name)}`, line (\d+)", readme))) == sorted(faults)


def test_one_forum_message_lacks_its_parent() -> None:
    rows = [json.loads(line) for line in _lines("forum.oasst.jsonl")]
    known = {row["message_id"] for row in rows}
    orphans = [n for n, row in enumerate(rows, start=1) if row["parent_id"] not in {None, *known}]
    assert orphans == [21]


def test_there_are_a_hundred_conversations_that_can_be_read() -> None:
    forum = [json.loads(line) for line in _lines("forum.oasst.jsonl")]
    parents = {row["parent_id"] for row in forum}
    counts = {
        "support": sum(_fault_of_support(line) is None for line in _lines("support.messages.jsonl")),
        "archive": len(_lines("archive.messages.jsonl.gz")),
        "community": len(json.loads((SAMPLES / "community.sharegpt.json").read_bytes())),
        "tutor": len(_lines("tutor.alpaca.jsonl")) - 1,
        "forum": sum(row["message_id"] not in parents for row in forum) - 1,
        "answers": len(_lines("answers.preference.jsonl")) - 1,
    }
    assert counts == {
        "support": 30,
        "archive": 8,
        "community": 29,
        "tutor": 30,
        "forum": 20,
        "answers": 16,
    }


def test_demo_reads_files_that_exist() -> None:
    demo = yaml.safe_load((SAMPLES / "demo.yaml").read_text(encoding="utf-8"))
    assert all((SAMPLES.parent / path).is_file() for path in demo["input"])
