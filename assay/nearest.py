"""What somebody who wrote a name wrong may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that ``word`` most resembles, in whatever case it is written; None where none does."""
    by_plain_name = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_plain_name, n=1, cutoff=0.5)
    return by_plain_name[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest choice, or nothing."""
    found = nearest(word, choices)
    return f"; did you mean {found!r}?" if found is not None else ""
