"""How a caller hears of each batch that a model has scored, while it waits for the outcomes of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _unheard(turns: int, tokens: int) -> None:
    """Nobody wants to hear of it."""


#: A worker's threads score shards of different runs, so each has its own.
_heard: ContextVar[Callable[[int, int], None]] = ContextVar("heard", default=_unheard)


@contextmanager
def reporting(heard: Callable[[int, int], None]) -> Iterator[None]:
    """Within, ``heard`` is called after every batch of this thread, with its turns and its tokens."""
    before = _heard.set(heard)
    try:
        yield
    finally:
        _heard.reset(before)


def batch_done(turns: int, tokens: int) -> None:
    """Report a batch. Costs nothing beside it, and changes no score."""
    _heard.get()(turns, tokens)
