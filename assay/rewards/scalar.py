"""One number for a turn: the model's own, or made of several attributes by weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from assay.core.errors import UserMistake
from assay.core.schema import REWARD, WEIGHTED_REWARD

#: How NVIDIA makes one number of Nemotron-4-340B-Reward's nine (its card on the Hub); zeros left out.
NEMOTRON_4_340B_WEIGHTS = {
    "helpfulness": 0.3,
    "correctness": 0.74,
    "coherence": 0.46,
    "complexity": 0.47,
    "verbosity": -0.33,
}


def scalar_among(attributes: Sequence[str]) -> str | None:
    """Which of a model's columns is its one number; None where it rates several qualities and weighs none."""
    named = next((name for name in (WEIGHTED_REWARD, REWARD) if name in attributes), None)
    return attributes[0] if named is None and len(attributes) == 1 else named


def weighted_scalar(
    attributes: Sequence[str], values: Sequence[float], weights: Mapping[str, float]
) -> float:
    """The sum of ``values`` (one an attribute, in their order), each times its weight, in float64.

    An attribute without a weight counts nothing. ``UserMistake`` where a weight names an attribute that
    is not there: leaving it out would give another number under the same name.
    """
    by_name = dict(zip(attributes, values, strict=True))
    check_weights(attributes, weights)
    return sum(weight * float(by_name[name]) for name, weight in weights.items())


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """Weights by attribute, from texts such as ``helpfulness=0.65``; ``UserMistake`` for any other."""
    weights: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        name = name.strip()
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not equals or not name or not math.isfinite(weight):
            raise UserMistake(f"--weights {text!r}: write an attribute and a number, as helpfulness=0.65")
        if name in weights:
            raise UserMistake(f"--weights: {name} is given twice")
        weights[name] = weight
    return weights


def check_weights(attributes: Sequence[str], weights: Mapping[str, float]) -> None:
    """Raise ``UserMistake`` where ``weights`` is empty or names what is not among ``attributes``."""
    if not weights:
        raise UserMistake("a weighted scalar needs at least one weight, such as helpfulness=0.65")
    unknown = [name for name in weights if name not in attributes]
    if unknown:
        raise UserMistake(
            f"a weight is given to {', '.join(unknown)}, which the model does not rate; "
            f"it rates {', '.join(attributes)}"
        )
