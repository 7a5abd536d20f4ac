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
