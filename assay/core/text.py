"""Words for people: numbers with their nouns, what a wrong name may have meant, text fit for a terminal."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

#: Of two words that resemble each other less (``difflib``'s ratio, 0 to 1), neither is meant for the other.
_NEAR = 0.7
#: A shorter word is part of too many names.
_SHORTEST_PART = 3
_MOST_MEANT = 4


def counted(number: int, things: str) -> str:
    """``1,002 turns``, and of one thing ``1 turn``."""
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that ``word`` most resembles, in whatever case it is written; None where none is near.

    A word that is a choice is no mistake: something else was wrong with it.

    >>> nearest("startr", ["starter", "other"]), nearest("temperature", ["export", "output"])
    ('starter', None)
    """
    by_plain_name = {choice.lower(): choice for choice in choices}
    if word in by_plain_name.values():
        return None
    found = difflib.get_close_matches(word.lower(), by_plain_name, n=1, cutoff=_NEAR)
    return by_plain_name[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest choice, or those that contain the word; or nothing.

    >>> did_you_mean("gemma", ["team/Gemma-2B", "team/Gemma-9B", "team/Llama-8B"])
    "; did you mean 'team/Gemma-2B' or 'team/Gemma-9B'?"
    """
    choices = list(choices)
    found = nearest(word, choices)
    if found is not None:
        return f"; did you mean {found!r}?"
    if len(word) < _SHORTEST_PART or word in choices:
        return ""
    meant = [repr(one) for one in choices if word.lower() in one.lower()]
    if not meant:
        return ""
    more = len(meant) - _MOST_MEANT
    if more > 0:
        return f"; did you mean one of these: {', '.join(meant[:_MOST_MEANT])}, or {more} more?"
    return f"; did you mean {' or '.join(meant)}?"


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
