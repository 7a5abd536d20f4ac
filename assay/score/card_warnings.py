"""Where a score may not be what it seems, and of which conversations that is true.

Either the model's card does not vouch for such conversations, or its chat template leaves out some of their
messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
import polars as pl

from assay.core.schema import BEYOND_TRAINED_LENGTH, OTHER_LANGUAGE, UNSEEN_TEXT, Message
from assay.core.versions import installed
from assay.rewards.probing import unseen_by_turn
from assay.rewards.protocol import ModelSpec
from assay.score.languages import DETECTOR, in_other_language

_CONVERSATION = msgspec.json.Decoder(tuple[Message, ...])


def told(model: ModelSpec) -> dict[str, str]:
    """The warnings that there may be with this model: their columns, and what a person is told."""
    card = "as {name}'s card has it"
    words = {
        BEYOND_TRAINED_LENGTH: f"longer than the {{limit}} tokens that it was trained on, {card}",
        OTHER_LANGUAGE: f"in another language than those that it was made for ({{limit}}), {card}",
        UNSEEN_TEXT: "shown to the model in part only, as {name}'s chat template leaves out {limit}",
    }
    return {flag: words[flag].format(limit=limit, name=model.name) for flag, limit in _limits(model).items()}


def depend_on(model: ModelSpec) -> list[str]:
    """All that the columns depend on, besides the conversations and their tokens."""
    parts = [f"{flag}: {limit}" for flag, limit in _limits(model).items()]
    if OTHER_LANGUAGE in told(model):
        versions = installed(*DETECTOR)
        parts += [f"{package} {versions[package]}" for package in DETECTOR]
    return parts


def _limits(model: ModelSpec) -> dict[str, str]:
    """Where the line is drawn, for each warning that there may be."""
    limits = {
        BEYOND_TRAINED_LENGTH: str(model.trained_tokens),
        OTHER_LANGUAGE: ", ".join(model.languages),
        UNSEEN_TEXT: ", ".join(model.unseen or ("nothing",)),
    }
    return {flag: limits[flag] for flag, reason in why_unknown(model).items() if reason is None}


def why_unknown(model: ModelSpec) -> Mapping[str, str | None]:
    """Every warning there is, with the reason why this model has none of the kind; None where it has."""
    no_length = no_language = no_unseen = None
    if model.endpoint is not None:
        no_length = f"{model.name} is a service, and what its model counts as tokens is not known here"
        no_unseen = f"{model.name} is a service, and what its model is shown is not known here"
    elif model.trained_tokens is None:
        no_length = f"how long conversations {model.name} was trained on is not known"
    if not model.languages:
        no_language = f"which languages {model.name} was made for is not known"
    if no_unseen is None and model.unseen is None:
        no_unseen = f"which messages {model.name} is shown is not known"
    return {BEYOND_TRAINED_LENGTH: no_length, OTHER_LANGUAGE: no_language, UNSEEN_TEXT: no_unseen}


def marked(turns: pl.DataFrame, model: ModelSpec, messages: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """The turns of a piece with a Boolean column for each of ``told``, from their ``tokens``.

    ``messages`` gives, for their rows, ``messages`` (JSON); it is asked only where that is needed.
    """
    for flag in told(model):
        if flag == BEYOND_TRAINED_LENGTH:
            marks = (pl.col("tokens") > model.trained_tokens).fill_null(False)
            turns = turns.with_columns(marks.alias(flag))
        elif flag == OTHER_LANGUAGE:
            texts = messages()
            other = [in_other_language(one, model.languages) for one in _conversations(texts)]
            by_row = texts.select("row", pl.Series(flag, other, pl.Boolean))
            turns = turns.join(by_row, on="row", how="left", maintain_order="left")
        elif not model.unseen:
            turns = turns.with_columns(pl.lit(False).alias(flag))
        else:
            texts = messages()
            unseen = [
                unseen_by_turn([message.role for message in one], model.unseen)
                for one in _conversations(texts)
            ]
            by_turn = texts.select(
                "row",
                pl.Series("turn", [list(range(len(one))) for one in unseen], pl.List(turns.schema["turn"])),
                pl.Series(flag, unseen, pl.List(pl.Boolean)),
            ).explode("turn", flag)
            turns = turns.join(by_turn, on=["row", "turn"], how="left", maintain_order="left")
    return turns


def _conversations(texts: pl.DataFrame) -> Iterator[tuple[Message, ...]]:
    return map(_CONVERSATION.decode, texts["messages"])


def counted(turns: pl.DataFrame, model: ModelSpec) -> dict[str, int]:
    """Of how many conversations each of ``told`` is true, going by their last turns."""
    last = turns.unique("row", keep="last")
    return {flag: int(last[flag].sum()) for flag in told(model)}
