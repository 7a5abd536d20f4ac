"""How a deployment's run ends by an error: a sentence in its state, and for a mistake an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from prefect import State
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from pydantic import BaseModel

from assay.config.said_in_a_form import in_words_of_the_form, what_there_is
from assay.config.settings import Settings
from assay.core.errors import AssayError, UserMistake
from assay.core.text import printable
from assay.report.summary import escaped
from flows.server.endings import EndKind, failed, kind_of
from tasks.pages import where_reachable


def ended_by(error: AssayError, options: BaseModel, inputs: Sequence[str] = ()) -> State[Any]:
    """The state of a run with this error, whose message is one sentence without a path of this machine.

    For a mistake, an artifact repeats the sentence, and names what there is where the ``inputs`` are not.
    """
    try:
        settings = Settings.read()
    except UserMistake:
        # The error is about these settings.
        return failed(str(error), kind_of(error))
    sentence = in_words_of_the_form(str(error), type(options), settings)
    kind = kind_of(error)
    # First of all, for the run's page shows it at once. There, a rule and the mark below it stand in lines of
    # their own.
    said = sentence if kind is None else kind.said(sentence)
    get_run_logger().error("%s", "\n".join(map(printable, said.splitlines())))
    if kind is EndKind.MISTAKE:
        _show(sentence, what_there_is(inputs, settings))
    return failed(sentence, kind)


def _show(sentence: str, there_is: Sequence[str]) -> None:
    parts = [*as_markdown(sentence), *map(escaped, there_is)]
    parts.append("Nothing was written. Start a new run with other options; a retry has the same ones.")
    with where_reachable():
        create_markdown_artifact("\n\n".join(parts), key="mistake", description="Why this run did nothing")


def as_markdown(sentence: str) -> list[str]:
    """The paragraphs of the sentence. Its indented lines stay as they are: a rule, and a mark below it.

    >>> as_markdown("unknown attribute\\n  helpful > 1\\n  ^^^^^^^\\nThe model rates it <so>")
    ['**unknown attribute**', '      helpful > 1\\n      ^^^^^^^', '**The model rates it &lt;so&gt;**']
    """
    parts = []
    for is_shown, lines in groupby(sentence.splitlines(), lambda line: line.startswith("  ")):
        if is_shown:
            # A block of code ends at a line that is not indented, whatever the text holds.
            parts.append("\n".join(f"    {printable(line)}" for line in lines))
        else:
            parts.append(f"**{escaped(' '.join(lines))}**")
    return parts
