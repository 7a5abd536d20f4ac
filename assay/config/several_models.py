"""The models of a run, when there are several: each has a name, and options may name the model they are for.

``--model judge=PATH --model safety=NAME --dtype judge:bfloat16`` is two models; what names none is for all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.rewards.options import ModelOptions

_ALIAS = r"[A-Za-z][A-Za-z0-9_-]*"
_NAMED = re.compile(rf"({_ALIAS})=(.+)", re.DOTALL)
_FOR_ONE = re.compile(rf"({_ALIAS}):(.*)", re.DOTALL)

#: What an option may be: one value for all models, or several, each for all or for one.
Given = str | int | bool | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model that a run names, and how it is read."""

    alias: str | None
    """What the run calls it; None where it has one model without a name of its own."""
    name: str
    options: ModelOptions


def named_models(models: Sequence[str]) -> dict[str | None, str]:
    """The models by what the run calls them, in order; by None where one model has no name.

    UserMistake where several models have no names, or two have the same.

    >>> named_models(["judge=a/b", "safety=c"]), named_models(["a/b"])
    ({'judge': 'a/b', 'safety': 'c'}, {None: 'a/b'})
    """
    found: dict[str | None, str] = {}
    for text in models:
        # A folder may have such a name.
        match = None if os.path.exists(text) else _NAMED.fullmatch(text)
        if match is None and len(models) > 1:
            raise UserMistake(
                f"--model {text}: of several models each needs a name of its own, such as --model "
                f"judge={text}"
            )
        alias = None if match is None else match[1]
        if alias in found:
            raise UserMistake(f"--model {text}: another model is called {alias} already")
        found[alias] = text if match is None else match[2]
    return found


def options_by_model(
    aliases: Sequence[str | None], given: Mapping[str, Given]
) -> dict[str | None, dict[str, Given]]:
    """For each model the options that are for it, by option; UserMistake for a model that there is not.

    The last value that is for a model counts, and one that names it before one for all. Of options that are
    lists, all that are for it count.
    """
    found: dict[str | None, dict[str, Given]] = {alias: {} for alias in aliases}
    for option, value in given.items():
        for alias in aliases:
            if isinstance(value, str) or not isinstance(value, Sequence):
                found[alias][option] = value
            else:
                found[alias][option] = _values_for(alias, aliases, option, value)
    return found


def _values_for(
    alias: str | None, aliases: Sequence[str | None], option: str, values: Sequence[str]
) -> list[str]:
    for_all: list[str] = []
    for_one: list[str] = []
    for text in values:
        match = _FOR_ONE.fullmatch(text)
        if match is None or aliases == [None]:
            for_all.append(text)
        elif match[1] not in aliases:
            known = [one for one in aliases if one is not None]
            raise UserMistake(
                f"{option} {text}: no model of this run is called {match[1]}"
                f"{did_you_mean(match[1], known)} (there are: {', '.join(known)})"
            )
        elif match[1] == alias:
            for_one.append(match[2])
    return for_one or for_all


def is_for_one_model(text: str) -> bool:
    """Whether the text names the model that it is for, as ``judge:bfloat16`` does."""
    return _FOR_ONE.fullmatch(text) is not None
