"""One number for a turn: the model's own, or a sum of several attributes, each times its factor.

In code, *weights* are a model's tensors; people who use Assay know the factors as ``--weights``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from assay.core.errors import UserMistake
from assay.core.schema import REWARD, WEIGHTED_REWARD

#: How NVIDIA makes one number of Nemotron-4-340B-Reward's nine (its card on the Hub); zeros left out.
NEMOTRON_4_340B_FACTORS = {
    "helpfulness": 0.3,
    "correctness": 0.74,
    "coherence": 0.46,
    "complexity": 0.47,
    "verbosity": -0.33,
}


def scalar_among(attributes: Sequence[str]) -> str | None:
    """Which of a model's columns is its one number; None where it has several attributes, unsummed."""
    named = next((name for name in (WEIGHTED_REWARD, REWARD) if name in attributes), None)
    return attributes[0] if named is None and len(attributes) == 1 else named


def weighted_scalar(
    attributes: Sequence[str], values: Sequence[float], factors: Mapping[str, float]
) -> float:
    """The sum of ``values`` (one an attribute, in their order), each times its factor, in float64.

    An attribute without a factor adds nothing. ``UserMistake`` where a factor is for an attribute that is
    not there: without it the sum would be another number under the same name.

    >>> weighted_scalar(("helpfulness", "verbosity"), (2.0, 1.0), {"helpfulness": 0.5, "verbosity": -0.25})
    0.75
    """
    by_name = dict(zip(attributes, values, strict=True))
    check_factors(attributes, factors)
    return sum(factor * float(by_name[name]) for name, factor in factors.items())


def parse_factors(texts: Sequence[str]) -> dict[str, float]:
    """Factors by attribute, from texts such as ``helpfulness=0.65``; ``UserMistake`` for any other.

    >>> parse_factors(["helpfulness=0.65", "verbosity=-.33"])
    {'helpfulness': 0.65, 'verbosity': -0.33}
    """
    factors: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        name = name.strip()
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not equals or not name or not math.isfinite(factor):
            raise UserMistake(f"--weights {text!r}: write an attribute and a number, as helpfulness=0.65")
        if name in factors:
            raise UserMistake(f"--weights: {name} is given twice")
        factors[name] = factor
    return factors


def check_factors(attributes: Sequence[str], factors: Mapping[str, float]) -> None:
    """Raise ``UserMistake`` where ``factors`` is empty, or has one for what is not among ``attributes``."""
    if not factors:
        raise UserMistake("a weighted scalar needs at least one weight, such as helpfulness=0.65")
    unknown = [name for name in factors if name not in attributes]
    if unknown:
        raise UserMistake(
            f"a weight is given to {', '.join(unknown)}, which the model does not rate; "
            f"it rates {', '.join(attributes)}"
        )
