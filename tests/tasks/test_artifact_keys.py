"""Artifacts of one output are one history in Prefect's pages, and those of two outputs are two."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tasks.artifact_keys import Subject

NAMES = st.text(max_size=200) | st.from_regex(r"[a-z0-9/_.-]{1,30}", fullmatch=True)


def test_a_key_names_what_it_is_and_the_output() -> None:
    assert Subject("results/first").key("summary") == "summary-results-first"
    assert Subject("results/2026-03-01").key("scores") == "scores-results-2026-03-01"
    assert Subject().key("summary") == "summary"
    # A command's output may be any path.
    assert re.fullmatch(r"summary-my-run-[0-9a-f]{8}", Subject("/home/Ann/My run").key("summary"))


def test_outputs_that_look_alike_have_keys_of_their_own() -> None:
    outputs = ["results/a-b", "results/a/b", "results/a_b", "results/a.b", "results/A-b", "results/a b"]
    assert len({Subject(output).key("summary") for output in outputs}) == len(outputs)


@given(output=NAMES, model=NAMES)
def test_every_key_is_one_that_prefect_takes(output: str, model: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", Subject(output, model).key("scores"))
