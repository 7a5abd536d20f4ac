"""Text for people: counts with their nouns, suggestions for a mistyped name, text fit for a terminal."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

#: A choice that is less like the word than this (``difflib``'s ratio, 0 to 1) is not suggested.
_NEAR = 0.7
#: A word shorter than this is part of too many names.
_SHORTEST_PART = 3
_MOST_NAMED = 4


def counted(number: int, things: str) -> str:
    """``1,002 turns``, or ``1 turn`` for one."""
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like ``word``, whatever their case; None where none is near.

    Also None where ``word`` is one of the choices: then the word is not the mistake.

    >>> nearest("startr", ["starter", "other"]), nearest("temperature", ["export", "output"])
    ('starter', None)
    """
    by_plain_name = {choice.lower(): choice for choice in choices}
    if word in by_plain_name.values():
        return None
    found = difflib.get_close_matches(word.lower(), by_plain_name, n=1, cutoff=_NEAR)
    return by_plain_name[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``; did you mean 'x'?`` with the nearest choice, else with those that contain ``word``; else empty.

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
    more = len(meant) - _MOST_NAMED
    if more > 0:
        return f"; did you mean one of these: {', '.join(meant[:_MOST_NAMED])}, or {more} more?"
    return f"; did you mean {' or '.join(meant)}?"


def printable(text: str) -> str:
    """``text`` on one line: each white-space character as a space, each other unprintable one as U+FFFD."""
    return "".join(
        " " if character.isspace() else character if character.isprintable() else "\ufffd"
        for character in text
    )


def columns(text: str) -> int:
    """How many terminal columns ``text`` takes: two per wide character, none per combining one."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
