"""What a turn that fails a rule costs: its record, what follows it, or itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from handmade import HELPSTEER, Record, Turn, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stages import decide

from assay.select.kinds import OnFail
from assay.select.rules import parse_rules
from assay.select.selection import Selection
from assay.storage.home import Home

#: An outcome, and the reason where it is not "kept".
Outcome = tuple[str, str | None]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def record(line: int, *scores: float | None) -> Record:
    messages = tuple(
        (role, f"{role} {line}.{n}") for n in range(len(scores)) for role in ("user", "assistant")
    )
    turns = tuple(
        Turn(None, "too_long: 9") if score is None else Turn((score, 3.0, 3.0, 1.0, 1.0)) for score in scores
    )
    return Record(line, messages, turns)


def decided(
    home: Home, records: Sequence[Record], *rules: str, on_fail: OnFail
) -> tuple[list[Outcome], dict[int, list[Outcome]], dict[str, int]]:
    """The outcomes of the records; those of the scored turns by record; the counts of turns."""
    made = make(home, {"a.jsonl": [records]})
    parsed = parse_rules(rules, attributes=HELPSTEER)
    filtered = decide(
        made.converted, made.scored, rules=parsed, home=made.home, selection=Selection(on_fail=on_fail)
    )
    (piece,) = filtered.pieces
    outcomes = pl.read_parquet(made.home.artifacts / piece.decisions.path).select("outcome", "reason").rows()
    assert piece.turns is not None
    turns = pl.read_parquet(made.home.artifacts / piece.turns.path)
    by_record = {
        row: part.select("outcome", "reason").rows()
        for (row,), part in turns.partition_by("row", as_dict=True, maintain_order=True).items()
    }
    return outcomes, by_record, filtered.turns


RULE = "helpfulness >= 2"
BROKEN = f"rule: {RULE}"
KEPT = ("kept", None)


def test_truncate_cuts_before_the_first_turn_that_fails(home: Home) -> None:
    records = [record(1, 3.0, 1.0, 3.0), record(2, 1.0, 3.0), record(3, 3.0, 3.0), record(4, 3.0, None)]
    outcomes, turns, counts = decided(home, records, RULE, on_fail="truncate")
    assert outcomes == [KEPT, ("dropped", BROKEN), KEPT, ("quarantined", "too_long: turn 1: 9")]
    assert turns == {
        0: [KEPT, ("cut", BROKEN), ("cut", BROKEN)],
        1: [("dropped", BROKEN)] * 2,
        2: [KEPT, KEPT],
    }
    assert counts == {"cut": 2}


def test_mask_leaves_the_record_and_takes_its_turn_out_of_training(home: Home) -> None:
    records = [record(1, 3.0, 1.0, 3.0), record(2, 1.0, 3.0), record(3, 1.0, 0.0)]
    outcomes, turns, counts = decided(home, records, RULE, on_fail="mask")
    assert outcomes == [KEPT, KEPT, ("dropped", BROKEN)]
    assert turns == {
        0: [KEPT, ("masked", BROKEN), KEPT],
        1: [("masked", BROKEN), KEPT],
        2: [("dropped", BROKEN)] * 2,
    }
    assert counts == {"masked": 2}


@pytest.mark.parametrize("on_fail", ["truncate", "mask"])
def test_a_rule_of_the_record_alone_drops_the_record(home: Home, on_fail: OnFail) -> None:
    records = [record(1, 3.0, 1.0), record(2, 3.0)]
    outcomes, _, counts = decided(home, records, "turns == 1", "max(helpfulness) > 2", on_fail=on_fail)
    assert outcomes == [("dropped", "rule: turns == 1"), KEPT]
    assert counts == {}
    outcomes, _, counts = decided(home, records, "mean(helpfulness) > 2", on_fail=on_fail)
    assert outcomes == [("dropped", "rule: mean(helpfulness) > 2"), KEPT]


def test_a_rule_may_take_a_turns_value_beside_the_records(home: Home) -> None:
    records = [record(1, 3.0, 1.0), record(2, 1.0)]
    outcomes, turns, _ = decided(home, records, "helpfulness >= 2 or turns == 1", on_fail="truncate")
    assert outcomes == [KEPT, KEPT]
    assert turns[0] == [KEPT, ("cut", "rule: helpfulness >= 2 or turns == 1")]


def test_a_group_function_is_of_the_turns_own_group(home: Home) -> None:
    """Two paths part at the second turn; the better one stays, and of the other what they share."""
    messages = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "better"))
    worse = (*messages[:3], ("assistant", "worse"))
    both = (3.0, 3.0, 3.0, 1.0, 1.0)
    records = [
        Record(1, messages, (Turn(both), Turn((4.0, *both[1:])))),
        Record(2, worse, (Turn(both), Turn((1.0, *both[1:])))),
    ]
    outcomes, turns, _ = decided(home, records, "rank(helpfulness) == 1", on_fail="truncate")
    assert outcomes == [KEPT, KEPT]
    assert turns == {0: [KEPT, KEPT], 1: [KEPT, ("cut", "rule: rank(helpfulness) == 1")]}


def test_a_percentile_is_among_all_turns(home: Home) -> None:
    records = [record(1, 0.0, 4.0), record(2, 1.0, 3.0)]
    _, turns, _ = decided(home, records, "percentile(helpfulness) > 50", on_fail="mask")
    assert [outcome for outcome, _ in turns[0]] == ["masked", "kept"]
    assert [outcome for outcome, _ in turns[1]] == ["masked", "kept"]


scores = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=4)


@pytest.mark.slow
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(scores, min_size=1, max_size=5), on_fail=st.sampled_from(["truncate", "mask"]))
def test_every_turn_is_counted_once_as_a_plain_loop_finds_it(
    tmp_path: Path, rows: list[list[float]], on_fail: OnFail
) -> None:
    records = [record(line, *row) for line, row in enumerate(rows, 1)]
    outcomes, turns, counts = decided(
        Home(tmp_path / "home"), records, RULE, "helpfulness < 3", on_fail=on_fail
    )
    expected = {"cut": 0, "masked": 0}
    for number, row in enumerate(rows):
        fails = [not 2 <= score < 3 for score in row]
        kept = not fails[0] if on_fail == "truncate" else not all(fails)
        assert outcomes[number][0] == ("kept" if kept else "dropped")
        found = [outcome for outcome, _ in turns[number]]
        if not kept:
            assert found == ["dropped"] * len(row)
        elif on_fail == "truncate":
            first = fails.index(True) if any(fails) else len(row)
            assert found == ["kept"] * first + ["cut"] * (len(row) - first)
            expected["cut"] += len(row) - first
        else:
            assert found == ["masked" if failed else "kept" for failed in fails]
            expected["masked"] += sum(fails)
    assert counts == {name: count for name, count in expected.items() if count}
