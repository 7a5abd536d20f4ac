"""Which sequences begin alike, so that what they share goes through the model once.

Several answers to one prompt, or branches of a tree, are token sequences with a long common beginning.
Its keys and values are computed once; after that each sequence costs what follows its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from assay.rewards.leaving import leave_if_unwanted
from assay.rewards.local.batching import SQUARE_TOKENS, BatchOutcome, TokenBudget, cost

#: A shorter beginning is not worth a forward pass of its own (a chat template's first tokens, a fixed
#: system message).
MIN_SHARED_TOKENS = 64

#: What is saved must be at least this part of all tokens: attention that starts behind a beginning
#: computes the whole rectangle and throws the upper triangle away, and there are two passes instead of one.
MIN_SAVED = 0.2

#: Rows of one pass may be padded by a third at most: those much shorter than its longest go separately,
#: unless the pass would then not keep the device busy.
_SHORTEST_TO_LONGEST = 0.75

#: Beginnings of one pass may be padded by an eighth at most, with the same exception.
_PADDED_TO_REAL = 9 / 8

#: Memory that a row takes for one token of its beginning while a layer attends to it, in tokens of
#: working memory: one layer's keys and values beside an MLP two to five times as wide as the model.
_ATTENDED_TOKEN_COST = 1 / 8


class Shared(NamedTuple):
    """Sequences that begin with the same ``tokens`` tokens, each with at least one token more."""

    members: tuple[int, ...]
    tokens: int


class Row(NamedTuple):
    """One sequence of a batch, and which of the batch's beginnings is its own."""

    beginning: int
    member: int


@dataclass(slots=True)
class _Interval:
    """Neighbours in sorted order with ``tokens`` tokens in common, and the best way to share in them."""

    tokens: int
    first: int
    saved: int = 0
    groups: list[tuple[int, int, int]] = field(default_factory=list)
    """first, end, tokens"""

    def absorb(self, part: _Interval) -> None:
        self.saved += part.saved
        self.groups += part.groups


def shared_beginnings(sequences: Sequence[np.ndarray]) -> list[Shared]:
    """Disjoint groups of sequences (int32) that are worth sharing a beginning, in input order.

    One beginning a sequence: of the tree that all common beginnings form, the choice that saves most
    tokens. Sequences in no group are best put through whole.
    """
    as_bytes = [ids.astype(np.int32, copy=False).tobytes() for ids in sequences]
    order = sorted(range(len(sequences)), key=as_bytes.__getitem__)
    ends = np.cumsum([0, *(len(sequences[index]) for index in order)])
    # Neighbours' common lengths form a tree of nested intervals: the classic walk with one stack.
    stack = [_Interval(0, 0)]
    for place in range(1, len(order) + 1):
        common = (
            _common_tokens(sequences[order[place - 1]], sequences[order[place]]) if place < len(order) else -1
        )
        first = place - 1
        closed: _Interval | None = None
        while stack and common < stack[-1].tokens:
            closed = _settled(stack.pop(), place, ends)
            first = closed.first
            if stack and common <= stack[-1].tokens:
                stack[-1].absorb(closed)
                closed = None
        if common >= 0 and common > stack[-1].tokens:
            stack.append(_Interval(common, first))
            if closed:
                stack[-1].absorb(closed)
        root = closed
    groups = root.groups if sequences and root else []
    found = [Shared(tuple(sorted(order[first:end])), tokens) for first, end, tokens in groups]
    return sorted(found)


def _common_tokens(one: np.ndarray, other: np.ndarray) -> int:
    """Length of the common beginning, short of the last token of either."""
    most = min(len(one), len(other)) - 1
    different = np.flatnonzero(one[:most] != other[:most])
    return int(different[0]) if len(different) else most


def _settled(interval: _Interval, end: int, ends: np.ndarray) -> _Interval:
    """The interval with its whole as one group, where that is worth it and saves more than its parts."""
    saved = (end - interval.first - 1) * interval.tokens
    total = int(ends[end] - ends[interval.first])
    worth = interval.tokens >= MIN_SHARED_TOKENS and saved >= MIN_SAVED * total
    if worth and saved >= interval.saved:
        interval.saved, interval.groups = saved, [(interval.first, end, interval.tokens)]
    return interval


def packed(
    groups: Sequence[Shared], lengths: Sequence[int], budget: TokenBudget, *, cached_token_cost: float
) -> Iterator[list[Shared]]:
    """Yield batches of groups whose beginnings go through the model together, longest first.

    Beginnings and what is kept of them take half of the budget at most; a batch is full once what follows
    its beginnings fills a pass. A group that costs more than that forms a batch by itself.
    """
    batch: list[Shared] = []
    following = 0
    for group in sorted(groups, key=lambda group: (-group.tokens, group.members)):
        if batch:
            longest = batch[0].tokens
            real = sum(one.tokens for one in batch) + group.tokens
            kept = beginnings_cost(len(batch) + 1, longest, cached_token_cost)
            too_many = kept > budget.max_tokens // 2 or following > budget.max_tokens
            busy = len(batch) * longest >= budget.least_busy
            if too_many or (busy and (len(batch) + 1) * longest > real * _PADDED_TO_REAL):
                yield batch
                batch, following = [], 0
        batch.append(group)
        following += sum(lengths[member] - group.tokens for member in group.members)
    if batch:
        yield batch


def beginnings_cost(count: int, longest: int, cached_token_cost: float) -> int:
    """Budgeted tokens of ``count`` beginnings padded to ``longest``, their kept keys and values included."""
    return cost(count, longest) + int(count * longest * cached_token_cost)


def rows_cost(rows: int, beginning: int, following: int) -> int:
    """Budgeted tokens of ``rows`` continuations of ``following`` tokens, each behind its ``beginning``."""
    square = following * (beginning + following) // SQUARE_TOKENS
    return rows * (following + square + int(beginning * _ATTENDED_TOKEN_COST))


def continuations(
    batch: Sequence[Shared], lengths: Sequence[int], budget: TokenBudget, *, cached_token_cost: float
) -> Iterator[list[Row]]:
    """Yield the passes that follow the beginnings of ``batch``: every member once, longest rest first.

    Each pass keeps to what the beginnings leave of the budget; a single row may exceed it.
    """
    longest_beginning = batch[0].tokens
    left = budget.max_tokens - beginnings_cost(len(batch), longest_beginning, cached_token_cost)
    rests = [
        (lengths[member] - group.tokens, Row(number, member))
        for number, group in enumerate(batch)
        for member in group.members
    ]
    rows: list[Row] = []
    longest = 0
    for rest, row in sorted(rests, key=lambda pair: (-pair[0], pair[1])):
        too_many = rows_cost(len(rows) + 1, longest_beginning, longest) > left
        busy = len(rows) * longest >= budget.least_busy
        if rows and (too_many or (busy and rest < longest * _SHORTEST_TO_LONGEST)):
            yield rows
            rows = []
        if not rows:
            longest = rest
        rows.append(row)
    if rows:
        yield rows


def run(
    groups: Sequence[Shared],
    lengths: Sequence[int],
    budget: TokenBudget,
    forward: Callable[[list[Shared]], BatchOutcome],
    *,
    cached_token_cost: float,
) -> Iterator[tuple[list[Shared], BatchOutcome]]:
    """Yield every batch of groups as it ends; only one of a single group ends ``OUT_OF_MEMORY``.

    Its members are then best put through whole, where each may be alone.
    """
    waiting = list(packed(groups, lengths, budget, cached_token_cost=cached_token_cost))[::-1]
    while waiting:
        batch = waiting.pop()
        leave_if_unwanted()
        outcome = forward(batch)
        if outcome is BatchOutcome.OUT_OF_MEMORY and len(batch) > 1:
            budget.shrink_below(beginnings_cost(len(batch), batch[0].tokens, cached_token_cost) * 2)
            half = len(batch) // 2
            waiting += [batch[half:], batch[:half]]
            continue
        yield batch, outcome
