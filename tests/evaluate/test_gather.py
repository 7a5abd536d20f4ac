"""What a benchmark asks: its own rows, each once, and no turn that no figure needs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from asking import asked, best_row, judge_row, pair_row, rm_row

from assay.core.errors import UserMistake

#: A row of each benchmark.
ROWS = {
    "rm-bench": rm_row("a", "one", domain="chat"),
    "judgebench": judge_row("p", "A>B"),
    "rewardbench": pair_row(1, "hep-go", "x"),
    "rewardbench-2": best_row("b", "Math", "y", 1, 3),
}


@pytest.mark.parametrize(
    ("wanted", "given"), [(one, other) for one in ROWS for other in ROWS if one != other]
)
def test_a_file_of_another_benchmark_is_recognised(wanted: str, given: str, tmp_path: Path) -> None:
    with pytest.raises(UserMistake) as refused:
        asked(tmp_path, wanted, {"rows.jsonl": [ROWS[given]]})
    assert f"Use --benchmark {given}" in str(refused.value)
    assert "rows.jsonl" in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("wanted", ["preferences", "labels"])
def test_rows_of_a_benchmark_that_say_nothing_else_are_recognised(wanted: str, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"those of JudgeBench\. Use --benchmark judgebench"):
        asked(tmp_path, wanted, {"rows.jsonl": [ROWS["judgebench"]]})


def test_preferences_take_a_benchmarks_pairs(tmp_path: Path) -> None:
    found = asked(tmp_path, "preferences", {"rows.jsonl": [ROWS["rewardbench"], ROWS["rm-bench"]]})
    assert sorted(len(item.answers) for item in found.items) == [2, 6]
    assert found.gathered.looks_like == {"rewardbench": 1, "rm-bench": 1}


def test_broken_rows_are_quarantined_with_their_place(tmp_path: Path) -> None:
    good, broken = json.dumps(ROWS["judgebench"]).encode(), b'{"pair_id": "q", "question": '
    empty = json.dumps({**ROWS["judgebench"], "pair_id": "r", "response_B": ""}).encode()
    found = asked(tmp_path, "judgebench", {"rows.jsonl": b"\n".join([good, broken, empty, b""])})
    assert (found.gathered.rows.read, found.gathered.rows.used, found.gathered.rows.quarantined) == (3, 1, 2)
    assert found.gathered.quarantined == {"empty_content": 1, "not_json": 1}
    refused = pl.read_parquet(found.home.artifacts / found.gathered.refused.path)
    assert refused["line"].to_list() == [2, 3]
    assert refused["offset"].to_list() == [len(good) + 1, len(good) + len(broken) + 2]


def test_a_row_that_two_files_hold_counts_once(tmp_path: Path) -> None:
    rows = [rm_row("a", "one", domain="chat"), rm_row("b", "two", domain="chat")]
    part = [rm_row("a", "one")]
    found = asked(tmp_path, "rm-bench", {"total_dataset.json": rows, "chat_filtered.json": part})
    assert found.gathered.dropped == {"repeated": 1}
    assert sorted(item.id for item in found.items) == ["a", "b"]
    # Twice in one file is what the benchmark has.
    twice = asked(tmp_path / "twice", "rm-bench", {"total_dataset.json": [rows[0], rows[0]]})
    assert (len(twice.items), twice.gathered.dropped) == (2, {})


def test_only_the_turns_that_are_asked_for_are_scored(tmp_path: Path) -> None:
    def side(last: str) -> list[dict[str, str]]:
        texts = ["hello", "hi", "and?", last]
        return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]

    rows = [{"chosen": side("good"), "rejected": side("bad")}]
    found = asked(tmp_path, "preferences", {"rows.jsonl": rows})
    assert sum(piece.turn_count for piece in found.converted.pieces) == 4
    assert sum(piece.turn_count for piece in found.gathered.asked.pieces) == 2
    assert [answer.turn for answer in found.items[0].answers] == [1, 1]
    assert found.gathered.asked.digest != found.converted.digest
