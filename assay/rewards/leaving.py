"""How scoring is left between two batches, once nobody wants the scores any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _stay() -> None:
    """Somebody wants the scores."""


#: A worker's threads score shards of different runs, so each has its own.
_check: ContextVar[Callable[[], None]] = ContextVar("check", default=_stay)


@contextmanager
def checking(check: Callable[[], None]) -> Iterator[None]:
    """Within, ``check`` is called before every batch of this thread; what it raises ends the scoring."""
    before = _check.set(check)
    try:
        yield
    finally:
        _check.reset(before)


def leave_if_unwanted() -> None:
    """Nothing, or what the check raises. Costs nothing beside a batch, and changes no score."""
    _check.get()()
