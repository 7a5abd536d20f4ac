"""Whether a conversation is in a script of none of the languages that a model was made for.

Scripts are told apart, not languages: Chinese before a model for English is noticed, French is not, and
neither is Ukrainian before one for Russian. Where one of a model's languages is not in the table, nothing
is noticed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from assay.schema import Conversation

#: Letters of scripts, as ranges of a regular expression (Unicode 16 blocks).
_SCRIPTS = {
    "latin": r"A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "greek": r"\u0370-\u03ff\u1f00-\u1fff",
    "cyrillic": r"\u0400-\u052f",
    "hebrew": r"\u0590-\u05ff",
    "arabic": r"\u0600-\u06ff\u0750-\u077f",
    "devanagari": r"\u0900-\u097f",
    "bengali": r"\u0980-\u09ff",
    "tamil": r"\u0b80-\u0bff",
    "telugu": r"\u0c00-\u0c7f",
    "thai": r"\u0e00-\u0e7f",
    "kana": r"\u3040-\u30ff",
    "han": r"\u3400-\u4dbf\u4e00-\u9fff",
    "hangul": r"\u1100-\u11ff\uac00-\ud7af",
}

#: ISO 639-1 → scripts. Every Latin one that a card names is listed, so that a missing one is noticed.
_LANGUAGES = {
    **dict.fromkeys(("en", "fr", "es", "de", "it", "pt", "pl", "id", "nl", "vi"), ("latin",)),
    "ar": ("arabic",),
    "bn": ("bengali",),
    "el": ("greek",),
    "fa": ("arabic",),
    "he": ("hebrew",),
    "hi": ("devanagari",),
    "ja": ("kana", "han"),
    "ko": ("hangul", "han"),
    "ru": ("cyrillic",),
    "ta": ("tamil",),
    "te": ("telugu",),
    "th": ("thai",),
    "uk": ("cyrillic",),
    "zh": ("han",),
}

#: Below this a name or a quotation would decide.
_FEWEST_LETTERS = 20
#: Characters of a message that are looked at: enough to know its script.
_LOOKED_AT = 2000

#: Runs of letters of the table: a text's share is of these.
_LETTERS = re.compile(f"[{''.join(_SCRIPTS.values())}]+")


def can_be_told(languages: Sequence[str]) -> bool:
    """Whether the scripts of all of ``languages`` (ISO 639-1) are known, and there are any."""
    return _letters_of_others(tuple(languages)) is not None


def in_other_script(conversation: Conversation, languages: Sequence[str]) -> bool:
    """Whether most letters are of scripts that none of ``languages`` (ISO 639-1) is written in."""
    other = _letters_of_others(tuple(languages))
    if other is None:
        return False
    texts = [message.content[:_LOOKED_AT] for message in conversation]
    found = _count(other, texts)
    if found < _FEWEST_LETTERS:
        return False
    return found * 2 > _count(_LETTERS, texts)


def _count(letters: re.Pattern[str], texts: Sequence[str]) -> int:
    """How many characters ``letters``, which takes runs of them, finds."""
    return sum(sum(map(len, letters.findall(text))) for text in texts)


@functools.cache
def _letters_of_others(languages: tuple[str, ...]) -> re.Pattern[str] | None:
    """The letters of every other script; None where that cannot be said."""
    if not languages or not set(languages) <= _LANGUAGES.keys():
        return None
    theirs = {script for language in languages for script in _LANGUAGES[language]}
    others = [letters for script, letters in _SCRIPTS.items() if script not in theirs]
    return re.compile(f"[{''.join(others)}]+") if others else None
