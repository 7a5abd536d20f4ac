"""Which sequences go through the model together: length order, token budget, halving when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from assay.rewards.leaving import leave_if_unwanted

#: Sequences are sorted by length within windows of this many; on ShareGPT 2% of the tokens are then padding.
WINDOW = 1024

#: Where a pass keeps the device busy as it is, a row that would be padded by more than a tenth waits.
_SHORTEST_TO_LONGEST = 0.9

#: A sequence as long as this costs twice what its tokens alone would, for attention grows with the square.
SQUARE_TOKENS = 16_384


class BatchOutcome(Enum):
    """What became of a batch."""

    DONE = "done"
    OUT_OF_MEMORY = "out of memory"


def cost(rows: int, longest: int) -> int:
    """Budgeted tokens of ``rows`` sequences padded to ``longest``, the square of the length included."""
    return rows * (longest + longest * longest // SQUARE_TOKENS)


def budgeted(
    lengths: Sequence[int], *, max_tokens: int, busy_tokens: int | None = None, window: int = WINDOW
) -> Iterator[list[int]]:
    """Yield batches of indices into ``lengths``, each within ``max_tokens`` of ``cost`` once padded.

    Windows follow each other in input order; inside one, the longest come first, equal ones in input
    order. A row that costs more than ``max_tokens`` forms a batch by itself: whether it fits is for the
    device to say. From ``busy_tokens`` on a batch is full as soon as the next row is much shorter.
    """
    for start in range(0, len(lengths), window):
        members = range(start, min(start + window, len(lengths)))
        batch: list[int] = []
        for index in sorted(members, key=lengths.__getitem__, reverse=True):
            if batch:
                longest = lengths[batch[0]]
                busy = busy_tokens is not None and len(batch) * longest >= busy_tokens
                much_shorter = lengths[index] < longest * _SHORTEST_TO_LONGEST
                if (busy and much_shorter) or cost(len(batch) + 1, longest) > max_tokens:
                    yield batch
                    batch = []
            batch.append(index)
        if batch:
            yield batch


class TokenBudget:
    """How many budgeted tokens a batch may hold; shrinks when memory runs out, and stays small."""

    def __init__(self, max_tokens: int, busy_tokens: int | None = None) -> None:
        self.max_tokens = max_tokens
        self.busy_tokens = busy_tokens
        """Tokens that keep the device busy for longer than a pass takes to launch; a pass with fewer is
        padded to have more rows. None for a device that launches a pass in no time: there no pass is too
        small, and batches, which are small anyway, are filled up to their budget."""

    @property
    def least_busy(self) -> int:
        """Tokens from which on a pass is not too small for its device."""
        return self.busy_tokens or 0

    def shrink_below(self, batch_cost: int) -> None:
        """Remember that a batch of this cost did not fit."""
        self.max_tokens = max(1, min(self.max_tokens, batch_cost) // 2)


def largest_fitting(fits: Callable[[int], bool], *, first: int, ceiling: int) -> int:
    """The largest of ``first``, twice that, and so on up to ``ceiling`` that fits with a quarter to spare.

    Steps of two, so that a little more or less free memory finds the same budget, and with it the same
    batches and the same bytes. ``first`` where not even that fits: batches are halved as they fail. Tried
    from the largest down: what does not fit fails in the first layers, and most devices hold the largest.
    """
    found = first
    while found * 2 <= ceiling:
        found *= 2
    while found > first and not fits(found * 5 // 4):
        found //= 2
    return found


def run(
    lengths: Sequence[int], budget: TokenBudget, forward: Callable[[list[int]], BatchOutcome]
) -> Iterator[tuple[list[int], BatchOutcome]]:
    """Yield every batch as it ends; one of several rows never ends ``OUT_OF_MEMORY``: it is cut smaller.

    ``forward`` is given indices into ``lengths``. A single row that does not fit is yielded with
    ``OUT_OF_MEMORY``, for the caller to report.
    """
    for planned in budgeted(lengths, max_tokens=budget.max_tokens, busy_tokens=budget.busy_tokens):
        waiting = [planned]
        while waiting:
            batch = waiting.pop()
            batch_cost = cost(len(batch), lengths[batch[0]])
            if len(batch) > 1 and batch_cost > budget.max_tokens:
                waiting.extend(reversed(_refit(batch, lengths, budget.max_tokens)))
                continue
            leave_if_unwanted()
            outcome = forward(batch)
            if outcome is BatchOutcome.OUT_OF_MEMORY and len(batch) > 1:
                budget.shrink_below(batch_cost)
                waiting.append(batch)
                continue
            yield batch, outcome


def _refit(batch: list[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    smaller = budgeted([lengths[index] for index in batch], max_tokens=max_tokens, window=len(batch))
    return [[batch[position] for position in members] for members in smaller]
