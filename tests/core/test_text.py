from __future__ import annotations

import pytest

from assay.core.text import did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "meant"),
    [("shargpt", "ShareGPT"), ("SHAREGPT", "ShareGPT"), ("mesages", "messages"), ("x", None), ("", None)],
)
def test_the_nearest_choice_is_what_may_have_been_meant(word: str, meant: str | None) -> None:
    assert nearest(word, ["messages", "ShareGPT"]) == meant


def test_a_mistake_ends_in_a_question_or_in_nothing() -> None:
    assert did_you_mean("mesages", ["messages"]) == "; did you mean 'messages'?"
    assert did_you_mean("x", ["messages"]) == did_you_mean("x", []) == ""


def test_what_resembles_nothing_suggests_nothing() -> None:
    assert did_you_mean("temperature", ["--export", "--output", "--dtype", "--keep"]) == ""


def test_a_name_that_is_among_the_choices_suggests_neither_itself_nor_another() -> None:
    assert did_you_mean("team/Reward-70B", ["team/Reward-70B", "team/Reward-70B-v2"]) == ""


def test_part_of_a_name_lists_the_names_that_contain_it() -> None:
    names = [f"Sky/Reward-{n}" for n in range(6)]
    assert did_you_mean("sky", names[:2]) == "; did you mean 'Sky/Reward-0' or 'Sky/Reward-1'?"
    suggestion = did_you_mean("sky", names)
    assert suggestion.endswith("'Sky/Reward-3', or 2 more?")
