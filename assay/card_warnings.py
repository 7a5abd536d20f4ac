"""What a model's card does not vouch for, and which conversations that is true of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import polars as pl

from assay.languages import DETECTOR, in_other_language
from assay.rewards.protocol import ModelSpec
from assay.schema import BEYOND_TRAINED_LENGTH, OTHER_LANGUAGE, Message
from assay.versions import installed

_CONVERSATION = msgspec.json.Decoder(tuple[Message, ...])


def told(model: ModelSpec) -> dict[str, str]:
    """The warnings that this model's card makes possible: their columns, and what a person is told."""
    words = {
        BEYOND_TRAINED_LENGTH: "longer than the {} tokens that it was trained on",
        OTHER_LANGUAGE: "in another language than those that it was made for ({})",
    }
    return {
        name: f"{words[name].format(limit)}, as {model.name}'s card has it"
        for name, limit in _vouched_for(model).items()
    }


def depend_on(model: ModelSpec) -> list[str]:
    """All that the columns depend on, besides the conversations and their tokens."""
    parts = [f"{name}: {limit}" for name, limit in _vouched_for(model).items()]
    if OTHER_LANGUAGE in told(model):
        versions = installed(*DETECTOR)
        parts += [f"{package} {versions[package]}" for package in DETECTOR]
    return parts


def _vouched_for(model: ModelSpec) -> dict[str, str]:
    """Where the card draws each line."""
    limits = {BEYOND_TRAINED_LENGTH: str(model.trained_tokens), OTHER_LANGUAGE: ", ".join(model.languages)}
    return {name: limits[name] for name, reason in why_unknown(model).items() if reason is None}


def why_unknown(model: ModelSpec) -> Mapping[str, str | None]:
    """Every warning there is, with the reason why this model has none of the kind; None where it has."""
    no_length = no_language = None
    if model.endpoint is not None:
        no_length = f"{model.name} is a service, and what its model counts as tokens is not known here"
    elif model.trained_tokens is None:
        no_length = f"how long conversations {model.name} was trained on is not known"
    if not model.languages:
        no_language = f"which languages {model.name} was made for is not known"
    return {BEYOND_TRAINED_LENGTH: no_length, OTHER_LANGUAGE: no_language}


def marked(turns: pl.DataFrame, model: ModelSpec, messages: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """The turns of a piece with a Boolean column for each of ``told``, from their ``tokens``.

    ``messages`` gives, for their rows, ``messages`` (JSON); it is asked only where that is needed.
    """
    for name in told(model):
        if name == BEYOND_TRAINED_LENGTH:
            beyond = (pl.col("tokens") > model.trained_tokens).fill_null(False)
            turns = turns.with_columns(beyond.alias(name))
        else:
            texts = messages()
            conversations = map(_CONVERSATION.decode, texts["messages"])
            other = [in_other_language(one, model.languages) for one in conversations]
            by_row = texts.select("row", pl.Series(name, other, pl.Boolean))
            turns = turns.join(by_row, on="row", how="left", maintain_order="left")
    return turns


def counted(turns: pl.DataFrame, model: ModelSpec) -> dict[str, int]:
    """Of how many conversations each of ``told`` is true, going by their last turns."""
    last = turns.unique("row", keep="last")
    return {name: int(last[name].sum()) for name in told(model)}
