"""Words for people: numbers with their nouns, what a wrong name may have meant, text fit for a terminal."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


def counted(number: int, things: str) -> str:
    """``1,002 turns``, and of one thing ``1 turn``."""
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that ``word`` most resembles, in whatever case it is written; None where none does."""
    by_plain_name = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_plain_name, n=1, cutoff=0.5)
    return by_plain_name[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest choice, or nothing."""
    found = nearest(word, choices)
    return f"; did you mean {found!r}?" if found is not None else ""


def printable(text: str) -> str:
    """``text`` on one line, character by character: white space as a space, else U+FFFD if not printable."""
    return "".join(
        " " if character.isspace() else character if character.isprintable() else "\ufffd"
        for character in text
    )


def columns(text: str) -> int:
    """The terminal columns that ``text`` takes: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
