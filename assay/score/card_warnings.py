"""Warnings about conversations whose scores may mislead.

There are two reasons: the model's card does not cover such conversations (too long, another language), or the
model's chat template leaves out some of their messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl

from assay.core.schema import (
    BEYOND_TRAINED_LENGTH,
    OTHER_LANGUAGE,
    UNSEEN_TEXT,
    WITH_SYSTEM_MESSAGE,
    Conversation,
    is_turn,
)
from assay.core.versions import installed
from assay.read.languages import DETECTOR
from assay.rewards.probing import unseen_by_turn
from assay.rewards.spec import ModelSpec, Unknown
from assay.storage.conversations import conversation_of

_A_SYSTEM_MESSAGE = "a system message"


def sentences(model: ModelSpec) -> dict[str, str]:
    """The warnings that this model can cause, as a person reads them, by the name of their column."""
    words = {
        BEYOND_TRAINED_LENGTH: "longer than the {limit} tokens that it was trained on (per {name}'s card)",
        OTHER_LANGUAGE: "not in a language that the model supports ({limit}, per {name}'s card)",
        WITH_SYSTEM_MESSAGE: "with {limit}, which {name}'s card asks to leave out",
        UNSEEN_TEXT: "shown to the model only in part: {name}'s chat template leaves out {limit}",
    }
    return {flag: words[flag].format(limit=limit, name=model.name) for flag, limit in _known(model).items()}


def depend_on(model: ModelSpec) -> list[str]:
    """What the columns depend on, apart from the conversations and their tokens."""
    parts = [f"{flag}: {limit}" for flag, limit in _known(model).items()]
    if model.languages:
        versions = installed(*DETECTOR)
        parts += [f"{package} {versions[package]}" for package in DETECTOR]
    return parts


def _known(model: ModelSpec) -> dict[str, str]:
    """The limits that are known, by the name of their column."""
    return {flag: limit for flag, limit in _limits(model).items() if not isinstance(limit, Unknown)}


def _limits(model: ModelSpec) -> dict[str, str | Unknown]:
    """The limit of every warning. A conversation beyond the limit gets the warning."""
    length, unseen = model.trained_length, model.unseen_messages
    return {
        BEYOND_TRAINED_LENGTH: length if isinstance(length, Unknown) else str(length),
        OTHER_LANGUAGE: ", ".join(model.languages)
        or Unknown(f"which languages {model.name} was made for is not known"),
        UNSEEN_TEXT: unseen if isinstance(unseen, Unknown) else ", ".join(unseen or ("nothing",)),
        WITH_SYSTEM_MESSAGE: _A_SYSTEM_MESSAGE
        if model.without_system
        else Unknown(
            f"no card of {model.name} is known that asks for conversations without a system message"
        ),
    }


def why_unknown(model: ModelSpec) -> Mapping[str, str | None]:
    """For every warning, why this model cannot cause it; None where it can."""
    return {flag: limit.why if isinstance(limit, Unknown) else None for flag, limit in _limits(model).items()}


def marked(
    turns: pl.DataFrame,
    model: ModelSpec,
    messages: Callable[[], pl.DataFrame],
    languages: Callable[[], pl.DataFrame],
) -> pl.DataFrame:
    """The turns of a piece, with a Boolean column for each of ``sentences``. Needs the column ``tokens``.

    ``messages`` gives the columns row and messages (JSON) of the piece, ``languages`` row and language. They
    are called only where they are needed.
    """
    length, left_out = model.trained_length, model.unseen_messages
    if not isinstance(length, Unknown):
        marks = (pl.col("tokens") > length).fill_null(False)
        turns = turns.with_columns(marks.alias(BEYOND_TRAINED_LENGTH))
    if model.languages:
        other = ~pl.col("language").is_in(list(model.languages))
        by_row = languages().select("row", other.fill_null(False).alias(OTHER_LANGUAGE))
        turns = turns.join(by_row, on="row", how="left", maintain_order="left")
    if model.without_system:
        turns = _joined(turns, messages(), WITH_SYSTEM_MESSAGE, _system_by_turn)
    if left_out == ():
        turns = turns.with_columns(pl.lit(False).alias(UNSEEN_TEXT))
    elif not isinstance(left_out, Unknown):
        kinds = left_out
        turns = _joined(turns, messages(), UNSEEN_TEXT, lambda roles: unseen_by_turn(roles, kinds))
    return turns


def _joined(
    turns: pl.DataFrame, texts: pl.DataFrame, flag: str, by_turn: Callable[[list[str]], list[bool]]
) -> pl.DataFrame:
    """The turns with the Boolean column ``flag``: what ``by_turn`` says of the roles of their messages."""
    marks = [_of_turns(one, by_turn) for one in _conversations(texts)]
    marked = texts.select(
        "row",
        pl.Series("turn", [list(range(len(one))) for one in marks], pl.List(turns.schema["turn"])),
        pl.Series(flag, marks, pl.List(pl.Boolean)),
    ).explode("turn", flag)
    return turns.join(marked, on=["row", "turn"], how="left", maintain_order="left")


def _of_turns(messages: Conversation, by_answer: Callable[[list[str]], list[bool]]) -> list[bool]:
    """What ``by_answer`` says of each assistant message, of those that are turns."""
    answers = [message for message in messages if message.role == "assistant"]
    marks = by_answer([message.role for message in messages])
    return [mark for mark, message in zip(marks, answers, strict=True) if is_turn(message)]


def _system_by_turn(roles: Sequence[str]) -> list[bool]:
    """For each turn, whether a system message stands before it."""
    return ["system" in roles[:place] for place, role in enumerate(roles) if role == "assistant"]


def _conversations(texts: pl.DataFrame) -> Iterator[Conversation]:
    return map(conversation_of, texts["messages"])


def conversations_warned_of(turns: pl.DataFrame, model: ModelSpec) -> dict[str, int]:
    """For each of ``sentences``, of how many conversations it is true. The last turn of each decides."""
    last = turns.unique("row", keep="last")
    return {flag: int(last[flag].sum()) for flag in sentences(model)}
