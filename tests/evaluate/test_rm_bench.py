"""RM-Bench: the matrix, both overall figures, and rows that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import asked, by_id, figures, rm_row

#: Two rows of chat and one of math: scores of chosen 0–2, then of rejected 0–2.
SCORES = {
    "a": (3.0, 2.0, 1.0, 2.0, 2.0, 5.0),
    "b": (9.0, 9.0, 9.0, 0.0, 0.0, 0.0),
    "c": (0.0, 0.0, 4.0, 1.0, 2.0, 3.0),
}
FILES = {
    "rows.jsonl": [
        rm_row("a", "one", domain="chat"),
        rm_row("b", "two", domain="chat"),
        rm_row("c", "three", domain="math"),
    ]
}


def by_the_readme(names: list[str]) -> dict[str, float]:
    """What the rule says, in a plain loop: shares of strict wins in the 3 × 3 matrix of these rows."""
    wins = [[0 for _ in range(3)] for _ in range(3)]
    for name in names:
        chosen, rejected = SCORES[name][:3], SCORES[name][3:]
        for i in range(3):
            for j in range(3):
                wins[i][j] += chosen[i] > rejected[j]
    share = [[count / len(names) for count in row] for row in wins]
    return {
        "hard": (share[0][1] + share[0][2] + share[1][2]) / 3,
        "normal": (share[0][0] + share[1][1] + share[2][2]) / 3,
        "easy": (share[1][0] + share[2][0] + share[2][1]) / 3,
    }


def test_the_matrix_gives_difficulties_domains_and_both_overall_figures(tmp_path: Path) -> None:
    found = figures(asked(tmp_path, "rm-bench", FILES), by_id(SCORES))
    chat, math = by_the_readme(["a", "b"]), by_the_readme(["c"])
    # By hand, row a: the chosen answers 3, 2, 1 against 2, 2, 5: 3 > 2 twice, and nothing else.
    assert found.groups["chat"].correct == 2 + 9
    assert found.groups["math"].correct == 3
    for name in ("hard", "normal", "easy"):
        assert found.groups[f"chat/{name}"].accuracy == pytest.approx(chat[name])
        assert found.groups[name].accuracy == pytest.approx((chat[name] + math[name]) / 2)
        assert found.groups_by_rows[name].accuracy == pytest.approx(by_the_readme(["a", "b", "c"])[name])
    domains = (sum(chat.values()) / 3, sum(math.values()) / 3)
    assert (found.groups["chat"].accuracy, found.groups["math"].accuracy) == pytest.approx(domains)
    assert found.overall.accuracy == pytest.approx(sum(domains) / 2) == pytest.approx((11 / 18 + 3 / 9) / 2)
    assert found.overall_by_rows is not None
    assert found.overall_by_rows.accuracy == pytest.approx(14 / 27)
    assert (found.overall.correct, found.overall.total) == (14, 27)


def test_ties_are_counted_lost_and_shown_under_each_rule(tmp_path: Path) -> None:
    found = figures(asked(tmp_path, "rm-bench", FILES), by_id(SCORES))
    # 2 = 2 twice in row a; none in row c.
    assert found.groups["chat"].ties == found.overall.ties == 2
    assert found.by_ties.lost == found.by_ties.own_rule == found.overall.accuracy
    assert found.by_ties.half == pytest.approx((12 / 18 + 3 / 9) / 2)
    assert found.by_ties.left_out == pytest.approx((11 / 16 + 3 / 9) / 2)


@pytest.mark.parametrize(
    ("file", "domain"),
    [
        ("chat_filtered.json", "chat"),
        ("safety-refuse_filtered.json", "safety"),
        ("safety-response_filtered.json", "safety"),
        ("code_filtered.json", "code"),
    ],
)
def test_a_file_of_one_domain_names_it(file: str, domain: str, tmp_path: Path) -> None:
    (item,) = asked(tmp_path, "rm-bench", {file: [rm_row("a", "one")]}).items
    assert item.group == domain


def test_a_row_that_is_none_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    rows = [
        rm_row("a", "one", domain="chat"),
        rm_row("b", "two", domain="chat", styles=2),
        rm_row("c", "three"),
        rm_row("d", "four", domain="poetry"),
    ]
    found = asked(tmp_path, "rm-bench", {"rows.jsonl": rows}).gathered
    assert (found.rows.read, found.rows.used, found.rows.quarantined) == (4, 1, 3)
    assert found.quarantined == {"unknown_domain": 2, "wrong_answers": 1}
