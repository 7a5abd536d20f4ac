"""The parser of rules under libFuzzer: whatever the text, it is a rule, or a mistake with its place.

    pip install atheris
    python benchmarks/fuzz_rules.py -max_total_time=600 CORPUS_FOLDER

The folder, which may hold rules to begin with, keeps what reached new code. What is parsed has to be spelled
in one way, and to parse to itself again.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["assay.select"]):
    from assay.core.errors import UserMistake
    from assay.core.schema import FLAGS
    from assay.select.columns import attribute
    from assay.select.parser import parsed_column, parsed_number
    from assay.select.rules import rules_in
    from assay.select.vocabulary import Vocabulary

ONE = Vocabulary(
    ("helpfulness", "reward"), dict.fromkeys(FLAGS), {}, attribute("helpfulness").column, ("judge",)
)
SEVERAL = Vocabulary(
    ("judge.helpfulness", "judge.reward", "safety.reward"),
    {"judge.unseen_text": None, "safety.unseen_text": "its template is not here"},
    {"safety.answer_tokens": "it is a service"},
    None,
    ("judge", "safety"),
)


def one_text(data: bytes) -> None:
    """Parse the text as a rule, as a number and as a column."""
    words = SEVERAL if len(data) % 2 else ONE
    text = data.decode(errors="ignore")
    try:
        (spelled,) = rules_in([text], words, allow_cross_prompt=True).canonical
    except UserMistake as mistake:
        mistake_is_one(str(mistake))
    else:
        again = rules_in([spelled], words, allow_cross_prompt=True).canonical
        if again != (spelled,):
            raise AssertionError(f"{text!r} is spelled {spelled!r}, and that {again!r}")
    for parse in (parsed_number, parsed_column):
        try:
            parse(text, words, option="--by")
        except UserMistake as mistake:
            mistake_is_one(str(mistake))


def mistake_is_one(message: str) -> None:
    """Nothing, where a terminal can show the message."""
    if not message or any(ord(letter) < 32 and letter != "\n" for letter in message):
        raise AssertionError(f"not fit for a terminal: {message!r}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_text)
    atheris.Fuzz()
