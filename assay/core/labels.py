"""Labels as NeMo-Aligner writes them: ``helpfulness:4,correctness:3``. Only this module clamps and rounds.

Checked against NVIDIA/NeMo-Aligner's common.py, preprocess_openassistant_data.py,
preprocess_helpsteer2_data.py and attribute_annotate.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import polars as pl

from assay.core.schema import ATTRIBUTES

#: The attributes that NeMo-Aligner labels OpenAssistant messages with (common.py).
OASST_ATTRIBUTES = ATTRIBUTES[:4]

_LOWEST, _HIGHEST = 0.0, 4.0
_ENTRY = re.compile(r"([a-z]+):(-?\d+)")


def label_from_scores(attributes: Sequence[str], values: Sequence[float]) -> str:
    """The label of one turn: values clamped to 0–4, then rounded half to even, in NeMo's order.

    An attribute that labels do not have is left out. ValueError for a value that is not a number, for a
    name that is given twice, and where labels have none of the attributes.
    """
    if len(values) != len(attributes):
        raise ValueError(f"{len(values)} values of {len(attributes)} attributes")
    entries: list[str] = []
    for name, place in _places(tuple(attributes)):
        value = values[place]
        if math.isnan(value):
            raise ValueError(f"{name} is not a number")
        entries.append(f"{name}:{round(_LOWEST if value < _LOWEST else min(value, _HIGHEST))}")
    return ",".join(entries)


@lru_cache
def _places(attributes: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """The attributes that labels have, in NeMo's order, each with its index in ``attributes``."""
    if len(set(attributes)) < len(attributes):
        raise ValueError(f"an attribute is given twice: {', '.join(attributes)}")
    places = tuple((name, attributes.index(name)) for name in ATTRIBUTES if name in attributes)
    if not places:
        raise ValueError(f"labels have none of {', '.join(attributes)}")
    return places


def label_expression(attributes: Sequence[str]) -> pl.Expr:
    """The label of each row: what ``label_from_scores`` gives of its attributes. None may be NaN."""
    entries: list[pl.Expr] = []
    for name, _ in _places(tuple(attributes)):
        rounded = pl.col(name).clip(_LOWEST, _HIGHEST).round(mode="half_to_even").cast(pl.UInt8)
        entries += [pl.lit(f"{',' if entries else ''}{name}:"), rounded.cast(pl.String)]
    return pl.concat_str(entries)


def label_from_oasst(values: Mapping[str, float]) -> str:
    """The label of an OpenAssistant message: its values from 0 to 1, times four, rounded half to even.

    Only quality, toxicity, humor and creativity, where present; empty where none is. Not clamped, as in
    NeMo-Aligner.
    """
    return ",".join(f"{name}:{round(values[name] * 4)}" for name in OASST_ATTRIBUTES if name in values)


def label_from_ratings(ratings: Mapping[str, float]) -> str:
    """The label of ratings, such as HelpSteer's: those that labels have, in NeMo's order.

    Rounded half to even, as labels are whole numbers; not clamped, because a person gave them.

    >>> label_from_ratings({"correctness": 3.0, "helpfulness": 2.5})
    'helpfulness:2,correctness:3'
    """
    return ",".join(f"{name}:{round(ratings[name])}" for name in ATTRIBUTES if name in ratings)


def parse_label(label: str) -> dict[str, int]:
    """The label's whole numbers by attribute. ValueError where the string is no label."""
    values: dict[str, int] = {}
    for entry in label.split(","):
        found = _ENTRY.fullmatch(entry)
        if found is None or found[1] not in ATTRIBUTES or found[1] in values:
            raise ValueError(f"{label!r} is no label: see {entry!r}")
        values[found[1]] = int(found[2])
    return values
