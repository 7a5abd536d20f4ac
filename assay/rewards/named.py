"""A model under the name that a run gives it, so that several models can stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.rewards.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class NamedModel:
    """One of a run's models."""

    alias: str | None
    """None where a run has one model, and it has no name of its own."""
    spec: ModelSpec

    @property
    def key(self) -> str:
        """What a run's manifest keeps it under."""
        return self.spec.name if self.alias is None else self.alias


def prefixed(alias: str, name: str) -> str:
    """The column of one of several models.

    >>> prefixed("judge", "helpfulness")
    'judge.helpfulness'
    """
    return f"{alias}.{name}"


def columns_of(models: Sequence[NamedModel]) -> tuple[str, ...]:
    """The columns of the models' numbers; those of several models begin with the model's name."""
    if len(models) == 1:
        return tuple(models[0].spec.columns)
    return tuple(prefixed(one.key, name) for one in models for name in one.spec.columns)


def plain_names(columns: Sequence[str]) -> tuple[str, ...]:
    """The attributes that columns of numbers hold, in their order: without the names of several models.

    >>> plain_names(["judge.helpfulness", "safety.reward"]), plain_names(["helpfulness"])
    (('helpfulness', 'reward'), ('helpfulness',))
    """
    if not all("." in name for name in columns):
        return tuple(columns)
    return tuple(name.partition(".")[2] for name in columns)
