"""RewardBench 2: best of four with shared first places, and the rule of Ties."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from asking import asked, best_row, by_id, figures

#: Of Ties: right answers first. Numbers 0 to 2 have both rows, 3 has only its reference.
TIES: dict[str, tuple[int, tuple[float, ...]]] = {
    "ref:0": (1, (5.0, 1.0, 2.0)),
    "tied:0": (3, (4.0, 3.5, 3.0, 1.0)),
    "ref:1": (1, (2.0, 2.5)),
    "tied:1": (2, (6.0, 2.0, 1.0)),
    "ref:2": (1, (1.0, 0.0)),
    "tied:2": (2, (3.0, 3.0, 2.0, 1.0)),
    "ref:3": (1, (0.0, 0.0)),
}


def by_its_own_code() -> float:
    """``process_single_model`` of RewardBench's repository, step by step in plain Python."""
    stats: dict[str, dict[int, tuple[bool, float, float]]] = {"ref": {}, "tied": {}}
    for identity, (right, scores) in TIES.items():
        kind, _, number = identity.partition(":")
        good, bad = scores[:right], scores[right:]
        gap = min(good) - max(bad)
        stats[kind][int(number)] = (gap > 0, max(good) - min(good), gap)
    ref, tied = stats["ref"], stats["tied"]
    both = [number for number in ref if number in tied]
    preferred = [tied[n][2] > tied[n][1] for n in both]
    hard = [min(ref[n][2], tied[n][2]) > tied[n][1] for n in both]
    margins = []
    for n in both:
        gap, among = min(ref[n][2], tied[n][2]), tied[n][1]
        margins.append(math.tanh(gap / among - 1) if among else math.copysign(1, gap))
    return (
        0.30 * sum(one[0] for one in tied.values()) / len(tied)
        + 0.30 * sum(one[0] for one in ref.values()) / len(ref)
        + 0.20 * sum(preferred) / len(both)
        + 0.20 * sum(hard) / len(both)
        + 0.01 * sum(margins) / len(both)
    )


def test_ties_are_the_sum_of_the_benchmarks_own_code(tmp_path: Path) -> None:
    rows = [
        best_row(identity, "Ties", f"question {identity}", right, len(scores) - right)
        for identity, (right, scores) in TIES.items()
    ]
    found = figures(
        asked(tmp_path, "rewardbench-2", {"rows.jsonl": rows}),
        by_id({identity: scores for identity, (_, scores) in TIES.items()}),
    )
    assert found.groups["Ties"].accuracy == pytest.approx(by_its_own_code())
    # By hand: tied 3/3; ref 2/4; preferred: 2 > 1, 1 < 4, 1 > 0; hard: 2 > 1, -0.5 < 4, 1 > 0.
    parts = {name: found.groups[f"Ties/{name}"] for name in ("tied", "ref", "preferred", "preferred_hard")}
    assert {name: (one.correct, one.total) for name, one in parts.items()} == {
        "tied": (3, 3),
        "ref": (2, 4),
        "preferred": (2, 3),
        "preferred_hard": (2, 3),
    }
    # tanh(2/1 - 1), tanh(-0.5/4 - 1), and 1 where the right answers do not differ.
    margin = (math.tanh(1) + math.tanh(-1.125) + 1) / 3
    assert found.groups["Ties"].accuracy == pytest.approx(0.3 + 0.15 + 0.4 * 2 / 3 + 0.01 * margin)
    assert found.groups["Ties"].ties == 1


def test_best_of_four_shares_a_first_place(tmp_path: Path) -> None:
    rows = [best_row(name, "Math", f"sum {name}", 1, 3) for name in "abc"]
    rows += [best_row("d", "Focus", "subject", 1, 3)]
    scores = {
        "a": (3.0, 1.0, 2.0, 0.0),
        "b": (2.0, 2.0, 2.0, 0.0),
        "c": (1.0, 2.0, 2.0, 0.0),
        "d": (1.0, 2.0, 0.0, 0.0),
    }
    found = figures(asked(tmp_path, "rewardbench-2", {"rows.jsonl": rows}), by_id(scores))
    assert found.groups["Math"].accuracy == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert found.groups["Math"].ties == 1
    assert found.overall.accuracy == pytest.approx(((1 + 1 / 3) / 3 + 0) / 2)
    assert found.by_ties.lost == pytest.approx((1 / 3 + 0) / 2)


def test_rows_of_another_shape_are_quarantined(tmp_path: Path) -> None:
    rows = [
        best_row("a", "Math", "x", 1, 3),
        best_row("b", "Math", "y", 2, 2),
        best_row("c", "Ties", "z", 1, 2),
        best_row("d", "Poetry", "w", 1, 3),
    ]
    found = asked(tmp_path, "rewardbench-2", {"rows.jsonl": rows}).gathered
    assert found.quarantined == {"unknown_id": 1, "unknown_subset": 1, "wrong_answers": 1}
