from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stages import decide

from assay.core.errors import AssayError, InputFault, UserMistake
from assay.select.decide import DECIDE, ToDecide, counted_as, refuse_quarantine
from assay.select.rules import Rules, parse_rules
from assay.storage.home import Home
from assay.storage.manifests import Counts, Filtered, Scored

TWO_TURNS = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
NAN = float("nan")
INFINITE = float("inf")


def rated(helpfulness: float, verbosity: float = 1.0) -> Turn:
    return Turn((helpfulness, 3.0, 3.0, 1.0, verbosity))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def filtered(made: Made, *rules: str, attributes: Sequence[str] = HELPSTEER) -> Filtered:
    return decide(
        made.converted,
        made.scored,
        rules=parse_rules(rules, attributes=attributes, allow_cross_prompt=True),
        home=made.home,
    )


def decisions(made: Made, *rules: str, attributes: Sequence[str] = HELPSTEER) -> list[tuple[str, str | None]]:
    result = filtered(made, *rules, attributes=attributes)
    frames = [pl.read_parquet(made.home.artifacts / piece.decisions.path) for piece in result.pieces]
    for frame in frames:
        assert frame.schema == {"row": pl.UInt32, "outcome": pl.String, "reason": pl.String}
        assert frame["row"].to_list() == list(range(frame.height))
    return [(outcome, reason) for frame in frames for _, outcome, reason in frame.iter_rows()]


def one(home: Home, record: Record, *rules: str) -> tuple[str, str | None]:
    (decision,) = decisions(make(home, {"a.jsonl": [[record]]}), *rules)
    return decision


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (["row.lnag == 'en'"], "no record of 2 has `row.lnag`"),
        (["row.lnag != 'en'"], "no record of 2 has `row.lnag`"),
        (["helpfulness >= 1", "row.vote > 3"], "no record of 2 has `row.vote` that is a number"),
        (["given.quality >= 2"], "no record of 2 has `given.quality`"),
        (["any(given.quality >= 2)"], "no record of 2 has `given.quality`"),
        (["percentile(row.votes, by=row.lnag) > 50"], "no record of 2 has `row.lnag`"),
        (["rank(row.nothing) == 1"], "no record of 2 has `row.nothing` that is a number"),
    ],
)
def test_a_rule_that_keeps_nothing_for_want_of_a_field_is_refused(
    home: Home, rules: list[str], why: str
) -> None:
    rows = [
        Record(n, (("user", "a"), ("assistant", f"b{n}")), (rated(2.0),), rest='{"lang":"en","votes":1}')
        for n in (1, 2)
    ]
    made = make(home, {"a.jsonl": [rows]})
    with pytest.raises(UserMistake, match=rf"^nothing is kept: `.*` holds of none, and {re.escape(why)}"):
        filtered(made, *rules)


def test_a_field_that_no_record_has_is_no_mistake_where_records_are_kept(home: Home) -> None:
    rows = [Record(n, (("user", "a"), ("assistant", f"b{n}")), (rated(n),), rest="{}") for n in (1, 2)]
    made = make(home, {"a.jsonl": [rows]})
    assert filtered(made, "row.lang is missing").counts.ok == 2
    assert filtered(made, "row.lang == 'en' or helpfulness >= 2").counts.ok == 1
    # Rules that keep nothing by what records have decide so, whatever another rule names.
    rules = ["row.lang is missing", "helpfulness >= 3"]
    assert filtered(made, *rules).counts.ok == 0
    assert filtered(made, "helpfulness >= 3").counts.ok == 0
    assert filtered(make(home, {"b.jsonl": [[]]}), "row.lang == 'en'").counts.ok == 0


def test_a_record_that_meets_every_rule_is_kept(home: Home) -> None:
    assert one(home, Record(1, turns=(rated(2.0),)), "helpfulness >= 2", "verbosity < 2") == ("kept", None)


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ("row.lang == 'en'", "dropped"),
        ("not row.lang == 'en'", "dropped"),
        ("margin(helpfulness) >= 0", "dropped"),
        ("row.lang == 'en' or row.lang is missing", "kept"),
    ],
)
def test_a_rule_that_a_missing_value_leaves_open_does_not_hold(home: Home, rule: str, outcome: str) -> None:
    without = Record(1, turns=(rated(2.0),), rest="{}")
    # Another prompt, so that each answer is alone in its group.
    other = Record(2, (("user", "else"), ("assistant", "b")), (rated(2.0),), rest='{"lang":"de"}')
    assert decisions(make(home, {"a.jsonl": [[without, other]]}), rule)[0][0] == outcome


def test_without_rules_a_scored_record_is_kept(home: Home) -> None:
    assert one(home, Record(1, turns=(rated(-9.0),))) == ("kept", None)


def test_the_first_rule_that_fails_is_the_reason_as_it_was_written(home: Home) -> None:
    record = Record(1, turns=(rated(1.0, verbosity=3.0),))
    assert one(home, record, "correctness == 3", "2<=helpfulness", "verbosity < 2") == (
        "dropped",
        "rule: 2<=helpfulness",
    )


def test_the_last_turn_decides(home: Home) -> None:
    good_end = Record(1, TWO_TURNS, (rated(0.0), rated(3.0)))
    bad_end = Record(2, TWO_TURNS, (rated(3.0), rated(0.0)))
    made = make(home, {"a.jsonl": [[good_end, bad_end]]})
    assert decisions(made, "helpfulness >= 2") == [("kept", None), ("dropped", "rule: helpfulness >= 2")]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (
            Turn(None, "too_long: 5000 tokens, the model takes 4096"),
            "too_long: turn 0: 5000 tokens, the model takes 4096",
        ),
        (Turn(None, "not_a_number"), "not_a_number: turn 0"),
        (Turn(None, "refused: a: b"), "refused: turn 0: a: b"),
        (Turn(None), "no_score: turn 0"),
        (Turn((2.0, None, 3.0, 1.0, 1.0)), "no_score: turn 0"),
        (Turn((2.0, NAN, 3.0, 1.0, 1.0)), "not_a_number: turn 0"),
        (Turn((2.0, 3.0, INFINITE, 1.0, 1.0)), "not_a_number: turn 0"),
        (Turn((2.0, 3.0, -INFINITE, 1.0, 1.0)), "not_a_number: turn 0"),
    ],
)
@pytest.mark.parametrize("rule", ["helpfulness >= 2", "not helpfulness >= 2", "correctness != 0"])
def test_a_missing_score_is_quarantined_whatever_the_rules_say(
    home: Home, turn: Turn, reason: str, rule: str
) -> None:
    assert one(home, Record(1, turns=(turn,)), rule) == ("quarantined", reason)


def test_an_earlier_turn_without_a_score_quarantines_its_record(home: Home) -> None:
    record = Record(1, TWO_TURNS, (Turn(None, "too_long: 9"), rated(4.0)))
    assert one(home, record, "helpfulness >= 2") == ("quarantined", "too_long: turn 0: 9")


def test_the_first_turn_without_a_score_is_the_one_named(home: Home) -> None:
    record = Record(1, TWO_TURNS, (rated(1.0), Turn(None, "too_long: 9")))
    assert one(home, record) == ("quarantined", "too_long: turn 1: 9")
    record = Record(1, TWO_TURNS, (Turn(None, "forged"), Turn(None, "too_long: 9")))
    assert one(home, record) == ("quarantined", "forged: turn 0")


def test_a_record_without_a_turn_never_passes(home: Home) -> None:
    record = Record(1, (("user", "a"),))
    assert one(home, record) == ("quarantined", "no_turn: no assistant message to rate")


def test_without_scores_only_what_convert_found_is_judged(home: Home) -> None:
    records = [Record(1, None, outcome="quarantined", reason="not_json: x"), Record(2)]
    made = make(home, {"a.jsonl": [records]})
    result = decide(made.converted, None, rules=Rules(), home=home)
    assert result.counts == Counts(1, {}, {"not_json": 1})
    rules = parse_rules(["helpfulness >= 2"], attributes=HELPSTEER)
    with pytest.raises(TypeError, match="there are rules but no scores"):
        decide(made.converted, None, rules=rules, home=home)


def test_the_first_record_in_quarantine_is_named_where_there_is_to_be_none(home: Home) -> None:
    too_long = Turn(None, "too_long: 9 tokens")
    made = make(
        home,
        {
            "a.jsonl": [[Record(1, turns=(rated(1.0),))], [Record(4, turns=(rated(1.0),))]],
            "b.jsonl": [[Record(1, turns=(rated(1.0),)), Record(7, turns=(too_long,))]],
        },
    )
    with pytest.raises(InputFault, match=r"^b\.jsonl:7: too_long: turn 0: 9 tokens$"):
        refuse_quarantine(made.converted, filtered(made), home)
    good = make(Home(home.root / "good"), {"a.jsonl": [[Record(1, turns=(rated(1.0),))]]})
    refuse_quarantine(good.converted, filtered(good, "helpfulness > 2"), good.home)


def test_what_convert_decided_stands(home: Home) -> None:
    made = make(
        home,
        {
            "a.jsonl": [
                [
                    Record(1, None, outcome="quarantined", reason="not_json: char 3"),
                    Record(2, outcome="dropped", reason="one_message: a path of one message"),
                    Record(3, turns=(rated(4.0),)),
                ]
            ]
        },
    )
    assert decisions(made, "helpfulness > 9") == [
        ("quarantined", "not_json: char 3"),
        ("dropped", "one_message: a path of one message"),
        ("dropped", "rule: helpfulness > 9"),
    ]


def test_no_role_of_a_message_decides_on_its_record(home: Home) -> None:
    odd = (("user", "a"), ("system", "b"), ("tool", "c"), ("assistant", "d"))
    assert one(home, Record(1, odd, turns=(rated(3.0),)), "helpfulness > 2") == ("kept", None)
    assert one(home, Record(1, odd, turns=(rated(1.0),)), "helpfulness > 2") == (
        "dropped",
        "rule: helpfulness > 2",
    )


def test_rules_are_counted_by_their_text_and_other_reasons_by_their_code(home: Home) -> None:
    made = make(
        home,
        {
            "a.jsonl": [
                [
                    Record(1, turns=(rated(1.0),)),
                    Record(2, turns=(rated(1.0),)),
                    Record(3, turns=(rated(3.0, verbosity=4.0),)),
                    Record(4, turns=(Turn(None, "too_long: 5"),)),
                ],
                [
                    Record(5, turns=(Turn(None, "too_long: 6"),)),
                    Record(6, turns=(rated(3.0),)),
                    Record(7, outcome="dropped", reason="one_message: 8"),
                ],
            ]
        },
    )
    counts = filtered(made, "helpfulness >= 2", "verbosity < 4").counts
    assert counts.ok == 1
    assert counts.dropped == {"one_message": 1, "rule: helpfulness >= 2": 2, "rule: verbosity < 4": 1}
    assert counts.quarantined == {"too_long": 2}


def test_counted_as_keeps_colons_of_rules_alone() -> None:
    assert counted_as("rule: a >= 2") == "rule: a >= 2"
    assert counted_as("too_long: turn 2: 5") == "too_long"
    assert counted_as("not_json") == "not_json"


def test_an_empty_piece_has_no_decisions(home: Home) -> None:
    assert decisions(make(home, {"a.jsonl": [[]]}), "helpfulness > 1") == []


def test_a_scalar_model_may_be_thresholded_by_who_insists(home: Home) -> None:
    made = make(home, {"a.jsonl": [[Record(1, turns=(Turn((-1.5,)),))]]}, attributes=("reward",))
    assert decisions(made, "reward > -2", attributes=("reward",)) == [("kept", None)]


def test_the_same_filter_twice_writes_the_same_bytes_to_the_same_place(home: Home) -> None:
    made = make(home, {"a.jsonl": [[Record(1, turns=(rated(1.0),)), Record(2, turns=(rated(3.0),))]]})
    assert filtered(made, "helpfulness > 2") == filtered(made, "helpfulness > 2")
    assert not list(home.artifacts.rglob("*.tmp"))


def test_the_key_changes_with_all_that_changes_a_decision_and_with_nothing_else(home: Home) -> None:
    made = make(home, {"a.jsonl": [[Record(1, turns=(rated(1.0),))]]})
    rescored = make(Home(home.root / "other"), {"a.jsonl": [[Record(1, turns=(rated(2.0),))]]})

    def key(scored: Scored = made.scored, rules: Sequence[str] = ("helpfulness > 1",)) -> str:
        parsed = parse_rules(rules, attributes=HELPSTEER)
        return DECIDE.digest(ToDecide(made.converted, scored, parsed))

    keys = [
        key(),
        key(rules=()),
        key(rules=("helpfulness > 2",)),
        key(rules=("1 < helpfulness",)),  # the same predicate, but reasons quote it otherwise
        key(rules=("helpfulness > 1", "helpfulness > 2")),
        key(scored=rescored.scored),
    ]
    assert len(set(keys)) == len(keys)
    assert key(rules=("  helpfulness   > 1",)) == key()


def test_scores_that_do_not_run_parallel_to_the_turns_are_refused(home: Home) -> None:
    made = make(home, {"a.jsonl": [[Record(1, TWO_TURNS, (rated(1.0),))]]})
    with pytest.raises(AssayError, match=r"scores-0-\w+\.parquet: 1 turns where the piece has 2"):
        filtered(made)


def test_an_artifact_that_was_cut_short_is_named(home: Home) -> None:
    made = make(home, {"a.jsonl": [[Record(1, turns=(rated(1.0),))]]})
    path = home.artifacts / made.scored.pieces[0].scores.path
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(AssayError, match=r"scores-0-\w+\.parquet: is gone or damaged"):
        filtered(made)


any_turn = st.one_of(
    st.builds(Turn, st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0])] * 5)),
    st.just(Turn(None, "too_long: 9")),
    st.just(Turn((1.0, NAN, 1.0, 1.0, 1.0))),
)


def reasons(found: list[tuple[str, str | None]], wanted: str) -> Iterator[str]:
    """The reasons of that outcome: each has one."""
    for outcome, reason in found:
        if outcome == wanted:
            assert reason is not None
            yield reason


@st.composite
def any_record(draw: st.DrawFn) -> Record:
    outcome = draw(st.sampled_from(["ok", "ok", "ok", "dropped", "quarantined"]))
    if outcome != "ok":
        return Record(1, None, outcome=outcome, reason=draw(st.sampled_from(["a: b", "c"])))
    turns = draw(st.lists(any_turn, min_size=1, max_size=3))
    messages = tuple((role, "x") for _ in turns for role in ("user", "assistant"))
    return Record(1, messages, tuple(turns))


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.lists(any_record(), max_size=6), max_size=3))
def test_every_record_is_counted_once_as_what_its_decision_says(
    tmp_path: Path, pieces: list[list[Record]]
) -> None:
    made = make(Home(tmp_path / "home"), {"a.jsonl": pieces})
    rules = ("helpfulness >= 1", "not verbosity > 2")
    found = decisions(made, *rules)
    counts = filtered(made, *rules).counts
    assert counts.read == len(found) == sum(len(piece) for piece in pieces)
    assert counts.ok == sum(outcome == "kept" for outcome, _ in found)
    assert counts.dropped == Counter(map(counted_as, reasons(found, "dropped")))
    assert counts.quarantined == Counter(map(counted_as, reasons(found, "quarantined")))
    for (outcome, reason), record in zip(found, [r for piece in pieces for r in piece], strict=True):
        if record.outcome != "ok":
            assert (outcome, reason) == (record.outcome, record.reason)
            continue
        fits = [turn.values is not None and turn.values[1] == turn.values[1] for turn in record.turns]
        last = record.turns[-1].values
        if last is None or not all(fits):
            assert outcome == "quarantined"
            assert f"turn {fits.index(False)}" in str(reason)
            continue
        helpfulness, *_, verbosity = last
        assert helpfulness is not None
        assert verbosity is not None
        if helpfulness < 1:
            assert (outcome, reason) == ("dropped", "rule: helpfulness >= 1")
        elif verbosity > 2:
            assert (outcome, reason) == ("dropped", "rule: not verbosity > 2")
        else:
            assert (outcome, reason) == ("kept", None)


def test_no_rules_keep_what_was_scored(home: Home) -> None:
    made = make(home, {"a.jsonl": [[Record(1, turns=(rated(1.0),)), Record(2, turns=(Turn(None, "x"),))]]})
    result = decide(made.converted, made.scored, rules=Rules(), home=home)
    assert (result.counts.ok, result.counts.quarantined) == (1, {"x": 1})
