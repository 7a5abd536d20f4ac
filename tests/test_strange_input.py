"""Settings, replies and chat templates that nobody meant: a value or a reason, and never a crash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strange_input import check_reply, check_settings, check_template
from struck_inputs import Bytes

from assay.rewards.templates import TemplateProcess

seeded = settings(max_examples=60, deadline=None, derandomize=True)
cases = st.binary(min_size=20, max_size=400)


@seeded
@given(data=cases)
def test_any_settings_are_read_or_are_a_mistake(data: bytes) -> None:
    check_settings(Bytes(data))


@pytest.mark.slow
@seeded
@given(data=cases)
def test_any_reply_gives_finite_scores_or_a_reason(data: bytes) -> None:
    check_reply(Bytes(data))


@pytest.fixture(scope="module")
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess(cpu_seconds=1.0)
    yield process
    process.close()


@pytest.mark.slow
@seeded
@given(data=cases)
def test_any_template_is_rendered_or_refused_and_spoils_no_other(
    data: bytes, process: TemplateProcess
) -> None:
    check_template(Bytes(data), process)


@pytest.mark.slow
def test_what_is_tried_comes_to_each_end() -> None:
    for check, ends in (
        (check_reply, {"no scores", "as it was", "other scores"}),
        (
            check_settings,
            {"refused and refused", "refused and refused and parsed"},
        ),
    ):
        found = Counter(check(Bytes(Random(seed).randbytes(400))) for seed in range(500))
        assert set(found) >= ends
