"""Text from data as a person can see it: what is invisible, or reorders its line, is written out."""

from __future__ import annotations

import re
import unicodedata

#: Joiners that scripts and emoji need.
_JOINERS = "\u200c\u200d"
_KEPT = "\n\t"
#: Likely to hold what is written out; most texts hold none of it.
_SUSPECT = re.compile(r"[^\x20-\x7e\n\t]")
_WRITTEN_OUT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""``text`` with each control, format and surrogate character written as its number.

    Line ends, tabs and the joiners of scripts stay. So a text cannot turn the direction of what stands
    beside it, and what a page holds is what a person reads.

    >>> visible("a\u202eb\x00")
    'a⟨U+202E⟩b⟨U+0000⟩'
    """
    text = text.replace("\r\n", "\n")
    return _SUSPECT.sub(lambda match: _visible(match[0]), text) if _SUSPECT.search(text) else text


def _visible(character: str) -> str:
    if character in _KEPT or character in _JOINERS:
        return character
    kind = unicodedata.category(character)
    if kind == "Zs":
        return " "
    return f"⟨U+{ord(character):04X}⟩" if kind in _WRITTEN_OUT else character
