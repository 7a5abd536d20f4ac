from __future__ import annotations

import operator
import re
import struct
from collections.abc import Callable, Mapping, Sequence

import polars as pl
import pytest
from handmade import HELPSTEER
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.core.errors import UserMistake
from assay.select.columns import attribute
from assay.select.expressions import Both, Comparison, Either, NamedColumn, Not, Operator, Predicate
from assay.select.parser import MAX_DEPTH, MAX_RULE_CHARACTERS
from assay.select.rules import Rules, parse_rules

COMPARE: dict[Operator, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def compared(name: str, symbol: Operator, threshold: float) -> Comparison:
    return Comparison(attribute(name).column, symbol, threshold)


def parsed(text: str, attributes: Sequence[str] = HELPSTEER) -> Predicate:
    (rule,) = parse_rules([text], attributes=attributes).rules
    return rule.predicate


def refusal(text: str, attributes: Sequence[str] = HELPSTEER) -> str:
    with pytest.raises(UserMistake) as caught:
        parse_rules([text], attributes=attributes)
    return str(caught.value)


def holds(text: str, **scores: float) -> bool | None:
    frame = pl.DataFrame(
        {name: [value] for name, value in scores.items()}, schema_overrides=dict.fromkeys(scores, pl.Float32)
    )
    held: bool | None = frame.select(parsed(text, tuple(scores)).expression()).item()
    return held


@pytest.mark.parametrize("symbol", COMPARE)
@pytest.mark.parametrize("score", [1.0, 2.0, 3.0])
def test_every_operator_compares_a_score_with_a_number(symbol: Operator, score: float) -> None:
    assert holds(f"helpfulness {symbol} 2", helpfulness=score) is COMPARE[symbol](score, 2.0)


@pytest.mark.parametrize("symbol", COMPARE)
@pytest.mark.parametrize("score", [1.0, 2.0, 3.0])
def test_a_number_may_stand_on_the_left(symbol: Operator, score: float) -> None:
    assert holds(f"2 {symbol} helpfulness", helpfulness=score) is COMPARE[symbol](2.0, score)


def test_a_chain_means_all_of_its_comparisons() -> None:
    assert parsed("1 <= helpfulness < 3") == Both(
        (compared("helpfulness", ">=", 1.0), compared("helpfulness", "<", 3.0))
    )


def test_and_binds_more_tightly_than_or_and_not_more_than_both() -> None:
    a, b, c = (compared(name, ">", 1.0) for name in ("helpfulness", "correctness", "coherence"))
    assert parsed("helpfulness > 1 or correctness > 1 and not coherence > 1") == Either(
        (a, Both((b, Not(c))))
    )


def test_parentheses_bind_before_everything() -> None:
    a, b, c = (compared(name, ">", 1.0) for name in ("helpfulness", "correctness", "coherence"))
    assert parsed("not (helpfulness > 1 or correctness > 1) and coherence > 1") == Both(
        (Not(Either((a, b))), c)
    )


def test_keywords_are_known_in_any_case() -> None:
    assert parsed("NOT helpfulness > 1 And verbosity < 2 OR coherence == 4") == parsed(
        "not helpfulness > 1 and verbosity < 2 or coherence == 4"
    )


def test_a_score_equals_the_decimal_that_it_is_printed_as() -> None:
    """0.1 is no float32; its neighbour 0.100000001490116 is, and prints as 0.1."""
    (bits,) = struct.unpack("<I", struct.pack("<f", 0.1))
    below, nearest, above = (struct.unpack("<f", struct.pack("<I", bits + step))[0] for step in (-1, 0, 1))
    assert [holds("helpfulness >= 0.1", helpfulness=x) for x in (below, nearest, above)] == [
        False,
        True,
        True,
    ]
    assert [holds("helpfulness <= 0.1", helpfulness=x) for x in (below, nearest, above)] == [
        True,
        True,
        False,
    ]
    assert [holds("helpfulness == 0.1", helpfulness=x) for x in (below, nearest, above)] == [
        False,
        True,
        False,
    ]
    assert [holds("helpfulness > 0.1", helpfulness=x) for x in (below, nearest, above)] == [
        False,
        False,
        True,
    ]


def test_minus_zero_is_zero() -> None:
    assert holds("helpfulness == -0", helpfulness=0.0) is True


def test_unknown_attribute_names_the_nearest_and_all_of_the_models() -> None:
    assert refusal("helpfullness >= 2") == (
        "In a rule, character 1: unknown attribute `helpfullness`\n"
        "  helpfullness >= 2\n"
        "  ^^^^^^^^^^^^\n"
        "Did you mean helpfulness? "
        "The model rates: helpfulness, correctness, coherence, complexity, verbosity. "
        "Other columns are tokens, answer_tokens, turns, messages, answer_chars, prompt_chars, language, "
        "source, side, starts_with_assistant, alternates, group_size, agrees, given_margin, row.FIELD and "
        "given.NAME."
    )


def test_an_attribute_is_spelled_as_the_model_spells_it() -> None:
    assert "Did you mean helpfulness?" in refusal("Helpfulness > 2")


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", 0, "A rule is empty"),
        ("  \t ", 0, "A rule is empty"),
        ("helpfulness", 12, "Expected one of < <= > >= == !="),
        ("helpfulness >=", 15, "Expected a number"),
        ("2 <=", 5, "Expected an attribute"),
        ("helpfulness >= 2 verbosity < 3", 18, "Expected `and`, `or` or the end of the rule"),
        ("(helpfulness >= 2", 18, "Expected `)` for the `(` at character 1"),
        ("helpfulness >= 2)", 17, "Expected `and`, `or` or the end of the rule"),
        ("helpfulness > verbosity", 15, "Expected a number: a score is compared with a number"),
        ("1 < 2", 5, "one side of a comparison is a score"),
        ("helpfulness = 2", 13, "Write `==` instead"),
        ("helpfulness > 2 && verbosity < 3", 17, "Write `and` instead"),
        ("helpfulness > 2 || verbosity < 3", 17, "Write `or` instead"),
        ("!helpfulness > 2", 1, "Write `not` instead"),
        ("helpfulness => 2", 13, "Write `>=` instead"),
        ("helpfulness > 1e39", 15, "Expected a number that a score can reach"),
        ("helpfulness > 1e999", 15, "Expected a number that a score can reach"),
        ("helpfulness > nan", 15, "unknown attribute `nan`"),
        ("and", 1, "Expected a comparison such as `helpfulness >= 2`"),
        ("__import__('os').system('true')", 1, "unknown attribute `__import__`"),
        ("helpfulness > 2; drop table", 16, "unexpected `;`"),
    ],
)
def test_a_mistake_is_shown_with_its_place_and_what_was_expected(
    text: str, place: int, expected: str
) -> None:
    message = refusal(text)
    assert expected in message
    if place:
        assert f"character {place}:" in message
        _, rule, carets, _ = message.split("\n")
        assert carets.index("^") == place + 1
        assert rule == f"  {text}"


def test_the_caret_stands_under_the_token_behind_wide_characters() -> None:
    message = refusal("評価 > 2", ("評価値",))
    assert message.split("\n")[2] == "  ^^^^"


def test_a_long_rule_is_shown_around_the_mistake_only() -> None:
    message = refusal(" and ".join(["helpfulness > 1"] * 100) + " and helpfulness = 2")
    assert all(len(line) < 80 for line in message.split("\n"))
    _, rule, carets, _ = message.split("\n")
    assert rule[carets.index("^")] == "="


def test_no_terminal_sequence_of_a_rule_reaches_the_terminal() -> None:
    assert "\x1b" not in refusal("helpfulness > \x1b[31m2")


def test_rules_that_go_too_deep_are_refused() -> None:
    assert f"deeper than {MAX_DEPTH}" in refusal("(" * 500 + "helpfulness > 1" + ")" * 500)
    assert f"deeper than {MAX_DEPTH}" in refusal("not " * 500 + "helpfulness > 1")
    assert parsed("(" * MAX_DEPTH + "helpfulness > 1" + ")" * MAX_DEPTH) == parsed("helpfulness > 1")


def test_rules_that_are_too_long_are_refused() -> None:
    assert "split it at its `and`" in refusal(
        "helpfulness > 1 and " * (MAX_RULE_CHARACTERS // 20 + 1) + "coherence > 1"
    )


def test_a_threshold_on_reward_is_refused_with_the_reason_and_the_ways_on() -> None:
    message = refusal("not (1 < reward)", ("reward",))
    assert "character 10: a threshold on `reward`" in message
    assert "compares answers to the same prompt" in message
    assert "attribute model" in message
    assert "--allow-cross-prompt" in message


def test_a_threshold_on_reward_is_taken_from_who_insists() -> None:
    rules = parse_rules(["reward >= 3"], attributes=("reward",), allow_cross_prompt=True)
    assert rules.rules[0].predicate == compared("reward", ">=", 3.0)


@pytest.mark.parametrize(
    "text",
    [
        "reward >= 3",
        "mean(reward) >= 3",
        "any(reward >= 3)",
        "percentile(reward) > 90",
        "percentile(max(reward), by=source) > 90",
        "reward in (1, 2)",
        "turns > 1 or not last(reward) < 0",
    ],
)
def test_whatever_thresholds_reward_across_prompts_is_refused(text: str) -> None:
    message = refusal(text, ("reward",))
    assert "a threshold on `reward`" in message
    ways = ["rank(reward)", "margin(reward)", "centred(reward)", "attribute model", "--allow-cross-prompt"]
    assert sorted(ways, key=message.index) == ways
    assert parse_rules([text], attributes=("reward",), allow_cross_prompt=True).rules


@pytest.mark.parametrize(
    "text",
    [
        "rank(reward) == 1",
        "margin(mean(reward)) > 0",
        "percentile(centred(reward)) > 50",
        "all(gap(reward) < 1)",
        "min(zscore(reward)) > -1",
        "reward is missing",
    ],
)
def test_within_the_prompt_reward_may_be_compared(text: str) -> None:
    assert parse_rules([text], attributes=("reward",)).rules


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("max(turns) > 1", 1, "`turns` is one value of a record already"),
        ("any(turns > 1)", 1, "is the same at each turn of a record"),
        ("all(any(helpfulness > 1))", 1, "one of them is enough"),
        ("min(percentile(helpfulness)) > 1", 1, "percentile is of records"),
        ("rank(gap(helpfulness)) == 1", 1, "is compared with others already"),
        ("percentile(percentile(helpfulness)) > 1", 1, "is a percentile already"),
        ("rank(language) == 1", 6, "`language` is a string"),
        ("rank() == 1", 6, "as in `rank(helpfulness)`"),
        ("rank(helpfulness == 1", 18, "Expected `)` for the `(` at character 5"),
        ("rnk(helpfulness) == 1", 1, "Did you mean rank?"),
        ("percentile(helpfulness, source) > 1", 25, "Expected `by=` and a column"),
        ("percentile(helpfulness, by=1) > 1", 28, "Expected a column"),
        ("tokens == 'a'", 11, "`tokens` is a number"),
        ("language > 'a'", 12, "compared with == and != alone"),
        ("language in 'a'", 13, "Expected a list such as"),
        ("language in ('a', helpfulness)", 19, "Expected a string in quotes"),
        ("language in ('a', 1)", 19, "`language` is a string"),
        ("language in ()", 14, "Expected a string or a number"),
        ("language is nothing", 13, "Expected `missing`"),
        ("language == 'en", 13, "has no ' at its end"),
        ("language", 9, "`in` or `is missing`"),
        ("alternates == 1", 12, "true or false: write it alone"),
        ("row. == 1", 1, "unknown attribute `row.`"),
        ("helpfulness > 'a'", 15, "`helpfulness` is a number"),
    ],
)
def test_a_mistake_in_a_function_or_a_string_is_shown_with_its_place(
    text: str, place: int, expected: str
) -> None:
    message = refusal(text)
    assert expected in message
    assert f"character {place}:" in message
    assert message.split("\n")[2].index("^") == place + 1


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1 <= helpfulness <= 3", "helpfulness >= 1 and helpfulness <= 3"),
        ('row.lang=="en"', "row.lang == 'en'"),
        ("'it\\'s' == row.x", "row.x == 'it\\'s'"),
        ("row.n >= 3.50", "row.n >= 3.5"),
        ("row.n == 1e300", "row.n == 1e+300"),
        ("language not in ( 'a' ,'b')", "not language in ('a', 'b')"),
        ("row.x IS NOT missing", "not row.x is missing"),
        ("percentile( helpfulness ,by = row.x )>5", "percentile(helpfulness, by=row.x) > 5"),
        ("all( helpfulness>1 or turns>2 )", "all(helpfulness > 1 or turns > 2)"),
    ],
)
def test_a_rule_has_one_spelling(text: str, canonical: str) -> None:
    rules = parse_rules([text], attributes=HELPSTEER)
    assert rules.canonical == (canonical,)
    assert parse_rules(rules.canonical, attributes=HELPSTEER).rules[0].predicate == rules.rules[0].predicate


def test_a_reason_names_the_rule_as_it_was_written() -> None:
    rules = parse_rules(["2  <=\thelpfulness"], attributes=HELPSTEER)
    assert rules.rules[0].reason == "rule: 2 <= helpfulness"
    assert rules.canonical == ("helpfulness >= 2",)


def test_no_rules_are_rules() -> None:
    assert parse_rules([], attributes=HELPSTEER) == Rules()


def test_a_score_that_is_missing_makes_no_rule_true_or_false() -> None:
    frame = pl.DataFrame({"helpfulness": [None]}, schema={"helpfulness": pl.Float32})
    assert frame.select(parsed("not helpfulness > 2").expression()).item() is None


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-5, 5).map(float)
comparisons = st.builds(compared, st.sampled_from(HELPSTEER), st.sampled_from(sorted(COMPARE)), numbers)


def flattened(kind: type[Both] | type[Either], operands: Sequence[Predicate]) -> Both | Either:
    flat: list[Predicate] = []
    for operand in operands:
        flat += operand.operands if isinstance(operand, kind) else [operand]
    return kind(tuple(flat))


predicates = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: flattened(Both, parts)),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: flattened(Either, parts)),
    ),
    max_leaves=12,
)


def evaluate(predicate: Predicate, scores: Mapping[str, float]) -> bool:
    match predicate:
        case Comparison(NamedColumn() as column, symbol, float() as threshold):
            return COMPARE[symbol](scores[column.name], threshold)
        case Not(operand):
            return not evaluate(operand, scores)
        case Both(operands):
            return all(evaluate(operand, scores) for operand in operands)
        case Either(operands):
            return any(evaluate(operand, scores) for operand in operands)
        case _:
            raise AssertionError(f"{predicate} is not drawn")


@pytest.mark.slow
@settings(deadline=None)
@given(predicates)
def test_canonical_text_parses_to_the_predicate_it_was_made_from(predicate: Predicate) -> None:
    assert parsed(str(predicate)) == predicate


@pytest.mark.slow
@settings(deadline=None)
@given(predicates, st.lists(st.tuples(*[numbers] * 5), min_size=1, max_size=5))
def test_rules_agree_with_a_plain_evaluation(predicate: Predicate, rows: list[tuple[float, ...]]) -> None:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(HELPSTEER, pl.Float32), orient="row")
    found = frame.select(parsed(str(predicate)).expression().alias("x"))["x"].to_list()
    assert found == [evaluate(predicate, dict(zip(HELPSTEER, row, strict=True))) for row in rows]


pieces_of_rules = st.sampled_from(
    [
        *HELPSTEER,
        *COMPARE,
        "(",
        ")",
        "and",
        "OR",
        "not",
        "2",
        "-1.5",
        "1e400",
        "=",
        "&&",
        "rank(",
        "percentile(",
        "all(",
        "mean(",
        "'en'",
        "'",
        ",",
        "in",
        "is missing",
        "by=",
        "row.x",
        "given.quality",
        "language",
        "\x00",
        "é",
        "\ud800",
    ]
)


@pytest.mark.slow
@settings(max_examples=500)
@given(
    st.text() | st.lists(pieces_of_rules, max_size=30).map(" ".join) | st.lists(pieces_of_rules).map("".join)
)
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        rules = parse_rules([text], attributes=HELPSTEER)
    except UserMistake as mistake:
        said = str(mistake)
    else:
        said = "A rule was parsed"
        assert parse_rules(rules.canonical, attributes=HELPSTEER).canonical == rules.canonical
    assert re.match(r"In a rule, character \d+: |A rule ", said)
