"""Text from data, made fit for a terminal: no line breaks, nothing that the terminal would obey."""

from __future__ import annotations

import unicodedata


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
