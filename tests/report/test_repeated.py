"""Records that say the same as an earlier one."""

from __future__ import annotations

from pathlib import Path

from handmade import Record, Turn, make

from assay.report.repeated import repeated_records
from assay.storage.home import Home

TURN = Turn((1.0, 3.0, 3.0, 1.0, 1.0))


def said(line: int, *answers: str) -> Record:
    chat = tuple(message for one in answers for message in (("user", "Why?"), ("assistant", one)))
    return Record(line, chat, (TURN,) * len(answers))


def test_a_record_that_says_what_an_earlier_one_says_is_counted_across_files(tmp_path: Path) -> None:
    first = [said(1, "a"), said(2, "b"), said(3, "a", "b"), said(4, "a")]
    files = {"a.jsonl": [first[:2], first[2:]], "b.jsonl": [[said(1, "a"), said(2, "a", "c")]]}
    made = make(Home(tmp_path / "home"), files)
    assert repeated_records(made.converted, made.home) == 2
    assert repeated_records(make(Home(tmp_path / "other"), {}).converted, made.home) == 0
