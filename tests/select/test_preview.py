"""What --preview shows of rules, with scores that are stored."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from rich.console import Console

from assay.report.preview import rules_table
from assay.report.spread import spreads
from assay.select.preview import RulesPreview, previewed
from assay.select.rules import parse_rules
from assay.select.selection import Selection
from assay.storage.home import Home

SCORES = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.5]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    rows = [
        Record(
            n, (("user", "Why?"), ("assistant", f"answer {n}")), (Turn((score, 3.0, 3.0, 1.0, 4.0 - score)),)
        )
        for n, score in enumerate(SCORES, 1)
    ]
    return make(Home(tmp_path / "home"), {"a.jsonl": [rows[:3], rows[3:]]})


def preview_of(made: Made, *rules: str) -> RulesPreview:
    parsed = parse_rules(rules, attributes=HELPSTEER)
    return previewed(made.converted, made.scored, parsed, Selection(), made.home)


def test_each_rule_says_what_it_drops_alone_and_what_no_other_does(made: Made) -> None:
    found = preview_of(made, "helpfulness >= 2", "verbosity < 2")
    assert (found.read, found.kept) == (8, 4)
    assert [(one.fails, one.fails_alone, one.asked) for one in found.rules] == [(3, 0, 8), (4, 1, 8)]


def test_a_ladder_says_what_other_thresholds_would_keep(made: Made) -> None:
    (cut,) = preview_of(made, "helpfulness >= 2.2").cuts
    kept = {rung.threshold: rung.kept for rung in cut.ladder}
    assert kept["2.2"] == 4
    assert {float(t): n for t, n in kept.items()} == {
        float(t): sum(score >= float(t) for score in SCORES) for t in kept
    }
    assert len(kept) >= 4


def test_the_three_nearest_records_on_either_side_are_shown(made: Made) -> None:
    (cut,) = preview_of(made, "helpfulness >= 2.2").cuts
    assert [(one.line, one.value) for one in cut.fails] == [(4, 2.0), (3, 1.5), (2, 1.0)]
    assert [(one.line, one.value) for one in cut.holds] == [(5, 2.5), (6, 3.0), (7, 3.5)]
    assert (cut.holds[0].file, cut.holds[0].answer) == ("a.jsonl", "answer 5")


@pytest.mark.parametrize("operator", [">", ">=", "<", "<=", "==", "!="])
def test_a_record_at_the_threshold_is_where_the_rule_puts_it(made: Made, operator: str) -> None:
    (cut,) = preview_of(made, f"helpfulness {operator} 2").cuts
    held = {">": False, ">=": True, "<": False, "<=": True, "==": True, "!=": False}[operator]
    assert (2.0 in [one.value for one in cut.holds]) == held
    assert (2.0 in [one.value for one in cut.fails]) != held


def test_the_table_names_all_of_it_and_nothing_is_left_behind(made: Made) -> None:
    before = {path for path in made.home.root.rglob("*") if path.is_file()}
    out = io.StringIO()
    Console(file=out, width=120).print(rules_table(preview_of(made, "helpfulness >= 2.2", "verbosity > 9")))
    shown = out.getvalue()
    for words in ("0 of 8 records would be kept", "<- the rule", "a.jsonl:5", "verbosity > 9` holds of none"):
        assert words in shown
    assert {path for path in made.home.root.rglob("*") if path.is_file()} == before


def test_the_spread_of_scores_is_counted_as_a_plain_loop_counts_it(made: Made) -> None:
    spread = spreads(made.converted, made.scored, made.home)["helpfulness"]
    assert spread.quantiles["50"] == 2.25
    assert spread.outside_labels == 1
    assert spread.kept_at == {
        cut: sum(score >= float(cut) for score in SCORES) / len(SCORES) for cut in spread.kept_at
    }
    assert len(spread.kept_at) >= 5
