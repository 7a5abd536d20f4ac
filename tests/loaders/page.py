"""The snippets of docs/trainers.md."""

from __future__ import annotations

import re
import shlex

from places import ROOT

PAGE = (ROOT / "docs/trainers.md").read_text()


def snippet(trainer: str, language: str) -> str:
    """The trainer's snippet in this language."""
    found = re.search(rf"### {trainer}\n(?:(?!\n### ).)*?```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, f"docs/trainers.md has no {language} of {trainer}"
    return found[1]


def words(trainer: str) -> list[str]:
    """The words of the trainer's command, as a shell has them."""
    return shlex.split(snippet(trainer, "sh").replace("\\\n", " "), comments=True)
