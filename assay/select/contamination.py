"""Records that hold evaluation data: those that share thirteen words in a row with a file of it.

Thirteen is what GPT-3's authors looked for (Brown et al. 2020, appendix C).
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from assay.core.errors import UserMistake
from assay.storage.regular import why_not_regular

WORDS = 13

#: Reason code of a record that shares words with evaluation data.
CONTAMINATED = "contaminated"

_WORD = re.compile(r"\w+")

_Json: TypeAlias = "bool | int | float | str | list[_Json] | dict[str, _Json] | None"


def evaluation_files(named: Sequence[str]) -> tuple[str, ...]:
    """The files that names and globs stand for, each once, in order. UserMistake where there is none."""
    files: list[str] = []
    for name in named:
        found = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else [name]
        if not found:
            raise UserMistake(f"--decontaminate {name}: there is no such file")
        for file in found:
            if os.path.isdir(file) or not os.path.exists(file):
                raise UserMistake(f"--decontaminate {file}: is no file; name files, or a glob of them")
            if why := why_not_regular(file):
                raise UserMistake(f"--decontaminate {file}: {why}; only regular files are read.")
            files.append(file)
    return tuple(dict.fromkeys(files))


def runs(text: str) -> Iterator[str]:
    """Yield each run of thirteen words, in lower case; of a shorter text, none."""
    words = _WORD.findall(text.lower())
    for start in range(len(words) - WORDS + 1):
        yield " ".join(words[start : start + WORDS])


class EvaluationTexts:
    """Where each run of thirteen words of some files stands."""

    def __init__(self, files: Sequence[str]) -> None:
        """UserMistake for a file that is not UTF-8 text: JSON, JSON lines or plain lines."""
        self._places: dict[str, tuple[str, int]] = {}
        for file in files:
            try:
                with open(file, encoding="utf-8") as lines:
                    for number, line in enumerate(lines, 1):
                        for text in _texts_in(line):
                            for run in runs(text):
                                self._places.setdefault(run, (file, number))
            except UnicodeDecodeError as error:
                raise UserMistake(
                    f"--decontaminate {file}: is not UTF-8 text. Write its questions to a .jsonl or .txt file"
                ) from error

    def reason(self, text: str) -> str | None:
        """Why a record with this text is dropped; None where it shares no thirteen words."""
        for run in runs(text):
            place = self._places.get(run)
            if place is not None:
                return f"{CONTAMINATED}: shares {WORDS} words with {place[0]}:{place[1]}"
        return None


def _texts_in(line: str) -> Iterator[str]:
    """Yield the strings of a line of JSON; of any other line, the line."""
    try:
        decoded: _Json = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        yield line
        return
    yield from _strings(decoded)


def _strings(value: _Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
