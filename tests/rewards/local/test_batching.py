"""Batches hold every row once, keep to their budget, and shrink when the device says no."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.rewards.local.batching import BatchOutcome, TokenBudget, budgeted, cost, run

lengths = st.lists(st.integers(1, 5000), max_size=60)


@pytest.mark.slow
@given(lengths, st.integers(1, 20_000), st.integers(1, 40))
def test_every_row_is_in_exactly_one_batch_within_the_budget(
    lengths: list[int], max_tokens: int, window: int
) -> None:
    batches = list(budgeted(lengths, max_tokens=max_tokens, window=window))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert lengths[batch[0]] == max(lengths[index] for index in batch)
        assert len(batch) == 1 or cost(len(batch), lengths[batch[0]]) <= max_tokens
        assert len({index // window for index in batch}) == 1


@given(lengths, st.integers(1, 20_000), st.integers(0, 20_000))
def test_a_batch_that_keeps_the_device_busy_takes_no_much_shorter_row(
    lengths: list[int], max_tokens: int, busy_tokens: int
) -> None:
    batches = list(budgeted(lengths, max_tokens=max_tokens, busy_tokens=busy_tokens))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = lengths[batch[0]]
        for place in range(1, len(batch)):
            assert place * longest < busy_tokens or lengths[batch[place]] >= 0.9 * longest
    for batch, after in pairwise(batches):
        longest, following = lengths[batch[0]], lengths[after[0]]
        full = cost(len(batch) + 1, longest) > max_tokens
        assert full or (len(batch) * longest >= busy_tokens and following < 0.9 * longest)


def test_a_budget_as_large_as_a_shard_is_no_reason_for_padding() -> None:
    # As ShareGPT's, of which a shard of 2**18 tokens holds some hundred.
    lengths = [20 + (index * 7919) % 4700 for index in range(110)]
    batches = list(budgeted(lengths, max_tokens=1 << 16, busy_tokens=8192))
    padded = sum(len(batch) * lengths[batch[0]] for batch in batches)
    assert padded / sum(lengths) < 1.1
    assert len(batches) < 35


def test_longest_come_first_and_equal_lengths_keep_their_order() -> None:
    assert list(budgeted([5, 9, 5, 9], max_tokens=1000)) == [[1, 3, 0, 2]]


def test_sorting_in_windows_leaves_little_padding() -> None:
    lengths = [1 + (index * 7919) % 2000 for index in range(1024)]
    padded = sum(len(batch) * lengths[batch[0]] for batch in budgeted(lengths, max_tokens=32_768))
    assert padded / sum(lengths) < 1.05


@given(lengths.filter(bool), st.integers(1, 4))
def test_out_of_memory_halves_until_it_fits_and_the_budget_stays_small(
    lengths: list[int], most_rows: int
) -> None:
    budget = TokenBudget(50_000)
    done: list[int] = []

    def forward(batch: list[int]) -> BatchOutcome:
        if len(batch) > most_rows:
            return BatchOutcome.OUT_OF_MEMORY
        done.extend(batch)
        return BatchOutcome.DONE

    for batch, outcome in run(lengths, budget, forward):
        assert outcome is BatchOutcome.DONE
        assert len(batch) <= most_rows
    assert sorted(done) == list(range(len(lengths)))
    assert budget.max_tokens <= 50_000


def test_a_row_that_fits_nowhere_is_reported_and_the_others_go_on() -> None:
    def forward(batch: list[int]) -> BatchOutcome:
        return BatchOutcome.OUT_OF_MEMORY if 1 in batch else BatchOutcome.DONE

    outcomes = {
        index: outcome for batch, outcome in run([4, 4, 4], TokenBudget(100), forward) for index in batch
    }
    assert outcomes == {0: BatchOutcome.DONE, 1: BatchOutcome.OUT_OF_MEMORY, 2: BatchOutcome.DONE}


def test_a_budget_that_shrank_is_remembered_for_the_batches_after() -> None:
    tried: list[int] = []

    def forward(batch: list[int]) -> BatchOutcome:
        tried.append(len(batch))
        return BatchOutcome.OUT_OF_MEMORY if len(batch) > 2 else BatchOutcome.DONE

    list(run([10] * 3000, TokenBudget(40), forward))
    assert tried.count(4) + tried.count(3) <= 2, "a size that failed was tried again"
