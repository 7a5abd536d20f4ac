"""What somebody who wrote a name wrong may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the choice that ``word`` most resembles in any case, or nothing."""
    choices = list(choices)
    by_plain_name = {choice.lower(): choice for choice in reversed(choices)}
    found = difflib.get_close_matches(word.lower(), by_plain_name, n=1, cutoff=0.5)
    return f"; did you mean {by_plain_name[found[0]]!r}?" if found else ""
