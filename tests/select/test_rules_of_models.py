"""Rules about the columns of several models of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measuring import Options

from assay.core.errors import UserMistake
from assay.core.schema import FLAGS
from assay.rewards.local_spec import local_spec
from assay.rewards.named import NamedModel
from assay.select.frames import Dataset, ToMeasure
from assay.select.measure import measured
from assay.select.rules import Rules, rules_in
from assay.select.selection import chosen_order, parse_selection
from assay.select.vocabulary import Vocabulary, tokenizers_of, vocabulary_of, why_no_alias
from assay.storage.home import Home

COLUMNS = ("judge.helpfulness", "judge.reward", "safety.reward", "safety.toxicity")
WORDS = Vocabulary(
    COLUMNS,
    {"judge.unseen_text": None, "safety.unseen_text": None, "judge.other_language": None},
    {"safety.answer_tokens": "guard is a service, and its tokenizer is not here"},
    aliases=("judge", "safety"),
)


def rules(*texts: str, words: Vocabulary = WORDS, insists: bool = False) -> Rules:
    return rules_in(texts, words, allow_cross_prompt=insists)


def refusal(text: str, words: Vocabulary = WORDS) -> str:
    with pytest.raises(UserMistake) as caught:
        rules(text, words=words)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("judge.helpfulness >= 2", "judge.helpfulness >= 2"),
        ("helpfulness >= 2", "judge.helpfulness >= 2"),
        ("rank(safety.reward) == 1", "rank(safety.reward) == 1"),
        ("other_language", "judge.other_language"),
        ("judge.tokens < 9 and turns > 1", "judge.tokens < 9 and turns > 1"),
        ("toxicity < 1 or row.lang is missing", "safety.toxicity < 1 or row.lang is missing"),
        ("agree(judge.reward, safety.reward)", "agree(judge.reward, safety.reward)"),
        (
            "all(agree(helpfulness, mean(safety.reward)))",
            "all(agree(judge.helpfulness, mean(safety.reward)))",
        ),
    ],
)
def test_a_bare_name_stands_for_the_one_model_that_has_it(written: str, canonical: str) -> None:
    assert rules(written).canonical == (canonical,)
    assert rules(canonical).canonical == (canonical,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rank(reward) == 1", "of several models: `reward`"),
        ("rank(reward) == 1", "`judge.reward`, `safety.reward`"),
        ("tokens < 9", "`judge.tokens`, `safety.tokens`"),
        ("safety.helpfulness > 1", "unknown attribute `safety.helpfulness`"),
        ("judge.turns > 1", "unknown attribute `judge.turns`"),
        ("safety.answer_tokens > 1", "its tokenizer is not here"),
        ("agree(judge.reward) ", "Expected `,` and a second number"),
        ("agree(judge.reward, 3)", "Expected what is measured"),
        ("agree(rank(judge.reward), safety.reward)", "is compared with others already"),
        ("agree(judge.reward, safety.reward) > 1", "Expected `and`, `or` or the end"),
        ("agree(judge.reward, side)", "here a number is expected"),
    ],
)
def test_a_name_that_says_no_one_column_is_refused_with_those_that_do(text: str, words: str) -> None:
    assert words in refusal(text)


@pytest.mark.parametrize(
    "text", ["judge.reward > 1", "any(safety.reward >= 3)", "percentile(judge.reward) > 50"]
)
def test_no_models_reward_is_compared_across_prompts(text: str) -> None:
    found = refusal(text)
    name = "safety.reward" if "safety" in text else "judge.reward"
    assert f"a threshold on `{name}`" in found
    assert f"rank({name}) == 1" in found
    assert rules(text, insists=True).canonical


def test_a_reward_that_one_model_has_is_refused_by_the_name_that_was_written() -> None:
    words = Vocabulary(("judge.helpfulness", "safety.reward"), {}, {}, aliases=("judge", "safety"))
    assert "a threshold on `reward`" in refusal("reward >= 3", words)


def test_one_model_may_be_called_by_its_name_and_its_columns_stay_bare() -> None:
    words = Vocabulary(HELPSTEER, dict.fromkeys(FLAGS), {}, aliases=("judge",))
    assert rules("judge.helpfulness > 1 and helpfulness < 4", words=words).canonical == (
        "helpfulness > 1 and helpfulness < 4",
    )
    assert rules("judge.tokens > 1", words=words).canonical == ("tokens > 1",)
    assert "unknown attribute" in refusal("judge.turns > 1", words)


def test_the_words_are_those_of_the_models() -> None:
    starter = local_spec("starter")
    words = vocabulary_of((NamedModel("judge", starter), NamedModel("other", starter)))
    assert words.attributes[0] == f"judge.{starter.columns[0]}"
    assert len(words.attributes) == 2 * len(starter.columns)
    assert words.meant_by("judge.unseen_text") == ("judge.unseen_text",)
    assert set(tokenizers_of((NamedModel("judge", starter), NamedModel("other", starter)))) == {
        "judge.answer_tokens",
        "other.answer_tokens",
    }
    assert set(tokenizers_of((NamedModel(None, starter),))) == {"answer_tokens"}


@pytest.mark.parametrize(
    "alias", ["row", "given", "turns", "tokens", "reward", "rank", "agree", "and", "agrees"]
)
def test_a_name_that_rules_have_is_no_models(alias: str) -> None:
    assert why_no_alias(alias)
    assert why_no_alias("judge") is None


def test_several_models_have_no_one_number_unless_one_is_chosen() -> None:
    only = Vocabulary(("judge.reward", "safety.toxicity"), {}, {}, aliases=("judge", "safety"))
    assert chosen_order(only, None) is None
    assert str(chosen_order(only, "reward")) == "judge.reward"
    with pytest.raises(UserMistake, match=r"needs an order, and there are several numbers: judge\.reward"):
        parse_selection(only, target="20%")
    chosen: Options = {"by": "margin(judge.reward)"}
    words = Vocabulary(COLUMNS, {}, {}, chosen_order(WORDS, chosen["by"]), ("judge", "safety"))
    assert str(parse_selection(words, orders_files=True, **chosen).order) == "margin(judge.reward)"


def record(line: int, question: str, *scores: float) -> Record:
    return Record(line, (("user", question), ("assistant", f"answer {line}")), (Turn(scores),))


def agreed(made: Made, text: str = "agree(judge.reward, safety.reward)") -> list[bool | None]:
    (rule,) = rules(text).rules
    with measured(Dataset(made.converted, made.scored, ToMeasure((rule.predicate,)), made.home)) as found:
        return [
            one
            for frames in found.frames
            for one in frames.records.select(rule.predicate.expression().alias("x"))["x"]
        ]


def test_two_models_agree_where_they_give_an_answer_the_same_rank(tmp_path: Path) -> None:
    """Ranks by the judge: 1, 2, 3, and 1, 1; by safety: 1, 3, 2, and 1, 2."""
    records = [
        record(1, "Why?", 0.0, 3.0, 9.0, 0.0),
        record(2, "Why?", 0.0, 2.0, 7.0, 0.0),
        record(3, "Why?", 0.0, 1.0, 8.0, 0.0),
        record(4, "How?", 0.0, 5.0, 1.0, 0.0),
        record(5, "How?", 0.0, 5.0, 0.5, 0.0),
    ]
    made = make(Home(tmp_path), {"a.jsonl": [records[:2], records[2:]]}, COLUMNS)
    assert agreed(made) == [True, False, False, True, False]


@pytest.mark.slow
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("pq"), st.integers(0, 3).map(float), st.integers(0, 3).map(float)),
        max_size=8,
    )
)
def test_agreement_is_that_of_a_plain_loop(tmp_path: Path, rows: Sequence[tuple[str, float, float]]) -> None:
    records = [record(n, prompt, 0.0, one, two, 0.0) for n, (prompt, one, two) in enumerate(rows, 1)]
    made = make(Home(tmp_path / "home"), {"a.jsonl": [records]}, COLUMNS)
    expected = []
    for prompt, one, two in rows:
        rivals = [row for row in rows if row[0] == prompt]
        expected.append(sum(row[1] > one for row in rivals) == sum(row[2] > two for row in rivals))
    assert agreed(made) == expected
