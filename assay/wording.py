"""Words that go with numbers."""

from __future__ import annotations


def counted(number: int, things: str) -> str:
    """``1,002 turns``, and of one thing ``1 turn``."""
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"
