"""What the rules of a run can name: the scores of its model, the columns of every record, and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from assay.core.schema import ATTRIBUTES, FLAGS, GIVEN, REWARD, WEIGHTED_REWARD
from assay.core.text import nearest
from assay.rewards.named import NamedModel, columns_of, prefixed
from assay.score.card_warnings import why_unknown
from assay.select.columns import (
    ANSWER_TOKENS,
    COLUMNS,
    COLUMNS_OF_MODELS,
    ROW,
    Measure,
    attribute,
    field,
    given,
)
from assay.select.expressions import GivenPairName, InGroupName, NamedColumn, OverTurnsName, Value, ValueKind
from assay.select.token_counts import TokenizerPlace, place_of
from assay.select.tokens import KEYWORDS

OVER_TURNS: tuple[OverTurnsName, ...] = get_args(OverTurnsName)
IN_GROUP: tuple[InGroupName, ...] = get_args(InGroupName)
PERCENTILE = "percentile"
EVERY_TURN = ("all", "any")
AGREE = "agree"
GIVEN_PAIR: tuple[GivenPairName, ...] = get_args(GivenPairName)

#: What each function is of, for messages.
FUNCTIONS: Mapping[str, str] = MappingProxyType(
    {
        **{name: f"{name}(helpfulness)" for name in (*OVER_TURNS, *IN_GROUP, PERCENTILE)},
        **{name: f"{name}(helpfulness >= 2)" for name in EVERY_TURN},
        AGREE: f"{AGREE}(judge.reward, safety.reward)",
    }
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that a rule may use. Those of several models' columns begin with the model's name."""

    attributes: tuple[str, ...]
    """What the models rate, and the one number of each where it is a sum."""
    flags: Mapping[str, str | None]
    """None for a flag that may be used; for any other, the reason why it may not."""
    unknown: Mapping[str, str]
    """Columns that are not known for a model, each with the reason."""
    order: Value | None = None
    """What orders answers, for ``agrees`` and ``given_margin``; None where nobody chose it."""
    aliases: tuple[str, ...] = ()
    """The names of the models, where they have names. With one, columns do not begin with it."""

    @property
    def has_several_models(self) -> bool:
        """Whether columns begin with a model's name."""
        return len(self.aliases) > 1

    def why_not(self, name: str) -> str | None:
        """Why a flag or a column that there is may not be used with this model; None where it may."""
        return None if name in self.attributes else self.flags.get(name) or self.unknown.get(name)

    def meant_by(self, written: str) -> tuple[str, ...]:
        """The columns that the name may stand for: one, none, or one of each of several models.

        A model's own name may stand before a name also where the run has one model.
        """
        alias, _, rest = written.partition(".")
        if alias in self.aliases and rest:
            name = written if self.has_several_models else rest
            return (name,) if self._is_of_a_model(name) else ()
        if not self.has_several_models:
            return (written,) if self._is_of_a_model(written) or _is_of_records(written) else ()
        if _is_of_records(written):
            return (written,)
        names = (prefixed(alias, written) for alias in self.aliases)
        return tuple(name for name in names if self._is_of_a_model(name))

    def _is_of_a_model(self, name: str) -> bool:
        if name in self.attributes or name in self.flags:
            return True
        own = name.partition(".")[2] if self.has_several_models else name
        return own in COLUMNS_OF_MODELS and own not in FLAGS

    def column(self, name: str, kind: ValueKind = ValueKind.ANY) -> NamedColumn:
        """The column that is called so in full; a row's field is taken as of that ``kind``."""
        return measure_of(name, self.attributes, kind).column

    def near(self, name: str) -> str | None:
        """The name that is meant, probably."""
        known = (*self.attributes, *self.flags, *self._columns, *GIVEN_PAIR, *FUNCTIONS)
        return nearest(name, known) or nearest(name, [one.rpartition(".")[2] for one in self.attributes])

    @property
    def _columns(self) -> list[str]:
        of_models = [name for name in COLUMNS_OF_MODELS if name not in FLAGS]
        if self.has_several_models:
            of_models = [prefixed(alias, name) for alias in self.aliases for name in of_models]
        return [*of_models, *COLUMNS]

    @property
    def others(self) -> str:
        """The names that are no score's, for a message."""
        return f"{', '.join([*self.flags, *self._columns, *GIVEN_PAIR])}, row.FIELD and given.NAME"


def vocabulary_of(models: Sequence[NamedModel]) -> Vocabulary:
    """The names that rules may use of these models, without an order."""
    several = len(models) > 1
    flags: dict[str, str | None] = {}
    unknown: dict[str, str] = {}
    for one in models:
        of_model = {name: prefixed(one.key, name) if several else name for name in COLUMNS_OF_MODELS}
        flags |= {of_model[name]: why for name, why in why_unknown(one.spec).items()}
        if place_of(one.spec) is None:
            unknown[of_model[ANSWER_TOKENS]] = f"{one.spec.name} is a service, and its tokenizer is not here"
    aliases = tuple(one.alias for one in models if one.alias is not None)
    return Vocabulary(columns_of(models), flags, unknown, aliases=aliases)


def tokenizers_of(models: Sequence[NamedModel]) -> dict[str, TokenizerPlace]:
    """Where the tokenizers are that count tokens, by the column that they are counted for."""
    places = {
        prefixed(one.key, ANSWER_TOKENS) if len(models) > 1 else ANSWER_TOKENS: place_of(one.spec)
        for one in models
    }
    return {column: place for column, place in places.items() if place is not None}


def why_no_alias(alias: str) -> str | None:
    """Why a rule cannot call a model so; None where it can."""
    if f"{alias}." in (ROW, GIVEN):
        return f"{alias}. begins the names of other columns"
    taken = {*COLUMNS, *COLUMNS_OF_MODELS, *GIVEN_PAIR, *FUNCTIONS, *ATTRIBUTES, REWARD, WEIGHTED_REWARD}
    if alias in taken:
        return f"{alias} is a column, or a function of rules"
    return f"{alias} is a word of rules" if alias.lower() in KEYWORDS else None


def _is_of_records(name: str) -> bool:
    """Whether it is a column that no model has a part in."""
    return (
        name in COLUMNS
        or name in GIVEN_PAIR
        or any(name.startswith(prefix) and len(name) > len(prefix) for prefix in (ROW, GIVEN))
    )


def measure_of(name: str, attributes: tuple[str, ...], kind: ValueKind = ValueKind.ANY) -> Measure:
    """How a column is computed, by its name in full; KeyError where there is none."""
    if name in attributes:
        return attribute(name)
    if name.startswith(ROW):
        return field(name, kind)
    if name.startswith(GIVEN):
        return given(name)
    if name in COLUMNS:
        return COLUMNS[name]
    return COLUMNS_OF_MODELS[name.rpartition(".")[2]](name)
