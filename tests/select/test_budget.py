"""A number of records instead of a threshold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import polars as pl
import pytest
from handmade import HELPSTEER, Record, Turn, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measuring import Options
from stages import decide

from assay.core.errors import UserMistake
from assay.select.budget import quotas
from assay.select.expressions import NamedColumn
from assay.select.kinds import Quota
from assay.select.rules import parse_rules
from assay.select.selection import Selection, chosen_order, parse_selection
from assay.select.vocabulary import Vocabulary
from assay.storage.home import Home

WORDS = Vocabulary(HELPSTEER, {}, {})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def record(line: int, score: float, lang: str | None = None, answer: str | None = None) -> Record:
    messages = (("user", "Why?"), ("assistant", answer or f"answer {line}"))
    rest = None if lang is None else f'{{"lang":"{lang}"}}'
    return Record(line, messages, (Turn((score, 3.0, 3.0, 1.0, 1.0)),), rest=rest)


def kept(
    home: Home,
    pieces: Sequence[Sequence[Record]],
    *rules: str,
    attributes: tuple[str, ...] = HELPSTEER,
    **options: Unpack[Options],
) -> tuple[list[int], tuple[str, ...]]:
    """The lines that are kept, and the notes."""
    made = make(home, {"a.jsonl": pieces}, attributes)
    selection = parse_selection(Vocabulary(attributes, {}, {}), **options)
    filtered = decide(
        made.converted,
        made.scored,
        rules=parse_rules(rules, attributes=attributes),
        home=made.home,
        selection=selection,
    )
    lines: list[int] = []
    for records, piece in zip(pieces, filtered.pieces, strict=True):
        outcomes = pl.read_parquet(made.home.artifacts / piece.decisions.path)
        lines += [r.line for r, one in zip(records, outcomes["outcome"], strict=True) if one == "kept"]
        assert set(outcomes.filter(pl.col("outcome") == "dropped")["reason"]) <= {
            "over_target: helpfulness is not among the best",
            "rule: helpfulness < 4",
        }
    return lines, filtered.notes


def refusal(words: Vocabulary = WORDS, **options: Unpack[Options]) -> str:
    with pytest.raises(UserMistake) as caught:
        parse_selection(words, **options)
    return str(caught.value)


SCORES = [1.0, 4.0, 3.0, 2.0, 3.5]


def test_a_target_keeps_the_best_by_what_is_named_across_pieces(home: Home) -> None:
    rows = [record(n, score) for n, score in enumerate(SCORES, 1)]
    lines, notes = kept(home, [rows[:2], [], rows[2:]], target="2", by="helpfulness")
    assert lines == [2, 5]
    assert notes == ("--target 2 keeps 2 of 5 records, the last of them with helpfulness 3.5",)


def test_a_share_is_of_what_the_rules_leave_and_rounded_down(home: Home) -> None:
    rows = [record(n, score) for n, score in enumerate(SCORES, 1)]
    assert kept(home, [rows], "helpfulness < 4", target="60%", by="helpfulness")[0] == [3, 5]


def test_a_target_of_more_than_there_is_keeps_all(home: Home) -> None:
    assert kept(home, [[record(1, 1.0)]], target="50000", by="helpfulness")[0] == [1]


def test_ties_are_broken_by_content_and_not_by_the_order_of_the_input(home: Home) -> None:
    answers = [f"answer {n}" for n in range(12)]

    def kept_answers(order: Sequence[int]) -> set[str]:
        rows = [record(n, 2.0, answer=answers[number]) for n, number in enumerate(order, 1)]
        lines, _ = kept(home, [rows[:5], rows[5:]], target="5", by="helpfulness")
        return {answers[order[line - 1]] for line in lines}

    order = list(range(12))
    first = kept_answers(order)
    assert len(first) == 5
    for seed in range(3):
        random.Random(seed).shuffle(order)
        assert kept_answers(order) == first


def test_each_value_of_a_column_has_its_part(home: Home) -> None:
    rows = [record(n, float(n), lang) for n, lang in enumerate(["en"] * 6 + ["de"] * 2 + [None], 1)]
    lines, notes = kept(home, [rows], target="3", by="helpfulness", per="row.lang", quota="equal")
    assert lines == [6, 8, 9]
    assert notes[-1] == (
        "--target 3 keeps 1 of 1 record with row.lang missing, the last of them with helpfulness 9"
    )
    # Shares of 4: 2.67, 0.89, 0.44; the two largest fractions get what is left.
    assert kept(home, [rows], target="4", by="helpfulness", per="row.lang")[0] == [4, 5, 6, 8]


ORDERED = [
    pytest.param(Options(target="2"), id="target"),
    pytest.param(Options(target="2", on_fail="mask"), id="target of turns"),
    pytest.param(Options(dedup="exact", dedup_over="prompt"), id="duplicates"),
    pytest.param(Options(), id="pairs"),
]


@pytest.mark.parametrize("options", ORDERED)
def test_what_no_record_has_orders_nothing_and_is_refused(home: Home, options: Options) -> None:
    rows = [record(n, 2.0, "en") for n in range(1, 4)]
    made = make(home, {"a.jsonl": [rows[:1], [], rows[1:]]})
    no_rules = parse_rules([], attributes=HELPSTEER)

    def decided(by: str) -> int:
        words = replace(WORDS, order=chosen_order(WORDS, by))
        selection = parse_selection(words, orders_files=not options, **Options(**options, by=by))
        return decide(made.converted, made.scored, rules=no_rules, home=home, selection=selection).counts.read

    assert decided("mean(helpfulness)") == 3
    with pytest.raises(UserMistake, match=r"^--by row\.lang: no record of 3 has a number there, so nothing"):
        decided("row.lang")


def test_a_record_without_the_value_comes_last(home: Home) -> None:
    rows = [
        Record(n, (("user", "a"), ("assistant", f"b{n}")), (Turn((1.0, 3.0, 3.0, 1.0, 1.0)),), rest=rest)
        for n, rest in enumerate(['{"votes":1}', "{}", '{"votes":-5}'], 1)
    ]
    made = make(home, {"a.jsonl": [rows]})
    selection = parse_selection(WORDS, target="2", by="row.votes")
    filtered = decide(
        made.converted,
        made.scored,
        rules=parse_rules([], attributes=HELPSTEER),
        home=home,
        selection=selection,
    )
    (piece,) = filtered.pieces
    assert pl.read_parquet(home.artifacts / piece.decisions.path)["outcome"].to_list() == [
        "kept",
        "dropped",
        "kept",
    ]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1),
    whole=st.integers(1, 100),
    quota=st.sampled_from(["proportional", "equal"]),
)
def test_parts_add_up_and_none_is_more_than_there_is(
    sizes: dict[str | None, int], whole: int, quota: Quota
) -> None:
    whole = min(whole, sum(sizes.values()))
    parts = quotas(sizes, whole, quota)
    assert sum(parts.values()) == whole
    assert all(0 <= parts[name] <= size for name, size in sizes.items())
    for name, size in sizes.items():
        if quota == "proportional":
            assert abs(parts[name] - whole * size / sum(sizes.values())) < 1
        else:
            assert parts[name] == size or parts[name] >= max(parts.values()) - 1


@pytest.mark.parametrize("target", ["0", "-5", "0%", "101%", "many", "", "5.5", "1/2%", "nan%", "²"])
def test_a_target_that_is_no_number_is_refused(target: str) -> None:
    assert "write a number of records" in refusal(target=target, by="helpfulness")


def test_a_target_needs_an_order() -> None:
    assert "Add --by, such as --by 'mean(helpfulness)'" in refusal(target="5")
    budget = parse_selection(Vocabulary(("quality",), {}, {}), target="5").budget
    assert budget is not None
    assert isinstance(budget.by, NamedColumn)
    assert budget.by.name == "quality"


def test_an_order_across_prompts_by_reward_is_refused_with_the_ways_on() -> None:
    words = Vocabulary(("reward",), {}, {})
    message = refusal(words=words, target="5")
    assert "compares answers to the same prompt" in message
    assert "rank(reward)" in message
    assert message.rstrip(".").endswith("your prompts are comparable")
    assert parse_selection(words, target="5", by="margin(reward)").budget
    assert parse_selection(words, target="5", allow_cross_prompt=True).budget
    assert "same prompt" in refusal(words=words, target="5", by="mean(reward)")


def test_an_order_that_is_no_number_is_refused_with_its_place() -> None:
    assert "In --by, character 1" in refusal(target="5", by="language")
    assert "no comparison" in refusal(target="5", by="helpfulness > 2")
    assert "In --per, character 1: unknown attribute `langage`" in refusal(
        target="5", by="helpfulness", per="langage"
    )


def test_what_only_a_target_needs_is_refused_without_one() -> None:
    assert "add --target" in refusal(by="helpfulness")
    assert "add --target" in refusal(per="row.lang")
    assert "add --per" in refusal(target="5", by="helpfulness", quota="equal")
    assert "write a field of the input row" in refusal(group="prompt_id")


def test_what_agrees_compares_by_needs_one_number() -> None:
    rules = parse_rules(
        ["agrees"], attributes=("reward",), order=Vocabulary(("reward",), {}, {}).column("reward")
    )
    assert rules.canonical == ("agrees",)
    with pytest.raises(UserMistake, match="no number to compare by: `agrees`"):
        parse_rules(["agrees"], attributes=HELPSTEER)
    order = WORDS.column("verbosity")
    chosen = parse_rules(["given_margin > 0"], attributes=HELPSTEER, order=order)
    selection = parse_selection(replace(WORDS, order=order), by="verbosity", rules=chosen)
    assert selection.depends_on() == ("sides by verbosity",)
    both = parse_selection(replace(WORDS, order=order), by="verbosity", rules=chosen, target="5")
    assert both.budget is not None
    assert (both.sides_by, both.budget.by) == (order, order)


def test_what_is_chosen_is_named_as_options() -> None:
    assert parse_selection(WORDS).texts == ()
    chosen: Options = {
        "group": "row.id",
        "on_fail": "mask",
        "dedup": "near",
        "by": "mean(helpfulness)",
        "target": "20%",
        "per": "source",
        "quota": "equal",
    }
    order = chosen_order(WORDS, chosen["by"])
    assert parse_selection(replace(WORDS, order=order), **chosen).texts == (
        "--group row.id",
        "--on-fail mask",
        "--dedup near --dedup-over whole --near 0.8 --by mean(helpfulness)",
        "--target 20% --by mean(helpfulness) --per source --quota equal",
    )


def test_decisions_depend_on_the_choice_and_a_choice_of_nothing_adds_nothing() -> None:
    selections = [
        Selection(),
        parse_selection(WORDS, group="row.id"),
        parse_selection(WORDS, on_fail="mask"),
        parse_selection(WORDS, target="5", by="helpfulness"),
        parse_selection(WORDS, target="5", by="mean(helpfulness)"),
        parse_selection(WORDS, target="5", by="helpfulness", per="source"),
        parse_selection(WORDS, target="5", by="helpfulness", per="source", quota="equal"),
    ]
    assert len({selection.depends_on() for selection in selections}) == len(selections)
    assert Selection().depends_on() == ()
