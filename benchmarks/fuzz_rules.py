"""The parser of rules under libFuzzer: whatever the text, it is a rule, or a mistake with its place.

    pip install atheris
    python benchmarks/fuzz_rules.py -max_total_time=600 CORPUS_FOLDER

The folder keeps what reached new code. A new one begins with the rules of ``docs/rules.md``: without them
libFuzzer reaches less than half as much code in a minute. What is parsed has to be spelled in one way, and
to parse to itself again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent

with atheris.instrument_imports(include=["assay.select"]):
    from assay.core.errors import UserMistake
    from assay.core.schema import FLAGS
    from assay.select.columns import attribute
    from assay.select.parser import MAX_RULE_CHARACTERS, parsed_column, parsed_number
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
        if len(spelled) > MAX_RULE_CHARACTERS:
            return  # ``1<a<2`` is spelled longer than it is written
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


def main() -> None:
    """Fuzz with libFuzzer's arguments: options, and a folder."""
    rules = re.findall(r"`([^`\n]+)`", (ROOT / "docs" / "rules.md").read_text())
    for folder in [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]:
        if not folder.exists():
            folder.mkdir()
            for number, rule in enumerate(rules):
                (folder / f"rule-{number}").write_text(rule)
    atheris.Setup(sys.argv, one_text)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
