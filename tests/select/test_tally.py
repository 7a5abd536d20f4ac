"""What is said of a rule that keeps nothing or everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade import HELPSTEER, Record, Turn, make
from stages import decide

from assay.select.kinds import OnFail
from assay.select.rules import parse_rules
from assay.select.selection import Selection
from assay.storage.home import Home


def notes(tmp_path: Path, *rules: str, on_fail: OnFail = "drop") -> tuple[str, ...]:
    rows = [
        Record(
            n,
            (("user", "a"), ("assistant", f"b{n}")),
            (Turn((score, 3.0, 3.0, 1.0, 1.0)),),
            rest='{"lang":"de"}',
        )
        for n, score in enumerate([1.5, 2.1, 0.1], 1)
    ]
    made = make(Home(tmp_path / "home"), {"a.jsonl": [rows[:1], rows[1:]]})
    parsed = parse_rules(rules, attributes=HELPSTEER)
    selection = Selection(on_fail=on_fail)
    return decide(made.converted, made.scored, rules=parsed, home=made.home, selection=selection).notes


@pytest.mark.parametrize(
    ("rule", "what", "nearest"),
    [
        ("helpfulness >= 3", "none", "helpfulness >= 2.1"),
        ("3 < helpfulness", "none", "helpfulness >= 2.1"),
        ("helpfulness < 0.1", "none", "helpfulness <= 0.1"),
        ("helpfulness >= 0.1", "all", "helpfulness > 0.1"),
        ("helpfulness <= 2.1", "all", "helpfulness < 2.1"),
        ("helpfulness < 9", "all", "helpfulness < 2.1"),
    ],
)
def test_the_nearest_threshold_that_would_not_is_named(
    tmp_path: Path, rule: str, what: str, nearest: str
) -> None:
    does = "keeps" if what == "none" else "drops"
    assert notes(tmp_path, rule) == (
        f"`{rule}` holds of {what} of 3 records: helpfulness goes from 0.1 to 2.1; `{nearest}` {does} some",
    )
    assert notes(tmp_path, nearest) == ()


def test_of_a_rule_of_several_parts_the_ranges_are_named(tmp_path: Path) -> None:
    assert notes(tmp_path, "helpfulness > 5 and turns < 3") == (
        "`helpfulness > 5 and turns < 3` holds of none of 3 records: helpfulness goes from 0.1 to 2.1, turns "
        "goes from 1 to 1",
    )
    assert notes(tmp_path, "row.lang == 'en'")[-1] == "`row.lang == 'en'` holds of none of 3 records"


def test_a_rule_that_is_asked_at_turns_counts_turns(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, "helpfulness > 5", on_fail="mask")
    assert note.startswith("`helpfulness > 5` holds of none of 3 turns")


def test_a_rule_that_keeps_some_says_nothing(tmp_path: Path) -> None:
    assert notes(tmp_path, "helpfulness > 1") == ()
    assert notes(tmp_path) == ()
