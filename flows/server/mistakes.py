"""How a deployment's run ends by an error: a sentence in its state, and for a mistake an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import State
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel

from assay.config.said_in_a_form import in_words_of_the_form, what_there_is
from assay.config.settings import Settings
from assay.core.errors import AssayError, UserMistake
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
    if kind is EndKind.MISTAKE:
        _show(sentence, what_there_is(inputs, settings))
    return failed(sentence, kind)


def _show(sentence: str, there_is: Sequence[str]) -> None:
    lines = [f"**{escaped(sentence)}**", *map(escaped, there_is)]
    lines.append("Nothing was written. Start a new run with other options; a retry has the same ones.")
    with where_reachable():
        create_markdown_artifact("\n\n".join(lines), key="mistake", description="Why this run did nothing")
