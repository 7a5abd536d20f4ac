"""RewardBench v1: sections weigh their subsets by the counts of the benchmark's own code."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import asked, figures, pair_row

from assay.evaluate.items import AskedItem, ItemAnswer

ROWS = [
    *(pair_row(f"prm-{n}", "math-prm", f"proof {n}") for n in range(4)),
    *(pair_row(f"cpp-{n}", "hep-cpp", f"code {n}") for n in range(2)),
    *(pair_row(f"easy-{n}", "alpacaeval-easy", f"chat {n}") for n in range(2)),
    pair_row("med-0", "mt-bench-med", "chat again"),
]
#: Those that the model has wrong: of math-prm one of four, of hep-cpp one of two, of mt-bench-med one of one.
WRONG = {"prm-3", "cpp-0", "med-0"}


def judge(item: AskedItem, answer: ItemAnswer) -> float:
    return float((answer.place == 0) == (item.id not in WRONG))


def test_sections_weigh_by_the_benchmarks_counts(tmp_path: Path) -> None:
    found = figures(asked(tmp_path, "rewardbench", {"rows.jsonl": ROWS}), judge)
    assert found.groups["math-prm"].accuracy == 3 / 4
    # 984 for math-prm, whatever rows there are; 164 for hep-cpp; 100 and 40 for the two subsets of chat.
    reasoning = (984 * 3 / 4 + 164 * 1 / 2) / (984 + 164)
    chat = (100 * 1.0 + 40 * 0.0) / 140
    assert found.groups["Reasoning"].accuracy == pytest.approx(reasoning)
    assert found.groups["Chat"].accuracy == pytest.approx(chat)
    assert "Safety" not in found.groups
    assert found.overall.accuracy == pytest.approx((reasoning + chat) / 2)
    assert found.overall_by_rows is not None
    assert found.overall_by_rows.accuracy == pytest.approx(6 / 9)
    assert (found.groups["Reasoning"].correct, found.groups["Reasoning"].total) == (4, 6)


def test_a_tie_is_lost_and_an_unknown_subset_is_quarantined(tmp_path: Path) -> None:
    rows = [pair_row(1, "hep-go", "x"), pair_row(2, "hep-cobol", "y")]
    found = asked(tmp_path, "rewardbench", {"rows.jsonl": rows})
    assert found.gathered.quarantined == {"unknown_subset": 1}
    made = figures(found, lambda item, answer: 0.0)
    assert (made.overall.accuracy, made.overall.ties) == (0.0, 1)
