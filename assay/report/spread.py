"""How the scores of records are spread: what a person looks at before choosing a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from assay.core.scale import round_numbers
from assay.core.schema import ATTRIBUTES
from assay.rewards.named import plain_names
from assay.select.frames import Dataset, ToMeasure
from assay.select.measure import measured
from assay.select.vocabulary import measure_of
from assay.storage.home import Home
from assay.storage.manifests import Converted, Scored
from assay.storage.run_manifest import Spread

_QUANTILES = (5, 25, 50, 75, 95)
_STEPS = 6
#: The range of labels; a rule sees the score as it is (docs/rules.md).
_LABELS = (0.0, 4.0)


def spreads(converted: Converted, scored: Scored, home: Home) -> dict[str, Spread]:
    """The spread of each attribute, of the last turns of all scored records.

    Held are four bytes a record and attribute.
    """
    columns = tuple(measure_of(name, scored.attributes).column for name in scored.attributes)
    with measured(Dataset(converted, scored, ToMeasure(columns), home)) as found:
        pieces = [frames.records.select(scored.attributes) for frames in found.frames]
    if not pieces or not sum(piece.height for piece in pieces):
        return {}
    values = pl.concat(pieces)
    plain = plain_names(scored.attributes)
    return {
        name: _spread(values[name], is_label=bare in ATTRIBUTES)
        for name, bare in zip(scored.attributes, plain, strict=True)
    }


def _spread(values: pl.Series, *, is_label: bool) -> Spread:
    ordered = values.sort()
    quantiles = {str(q): _at(ordered, q / 100) for q in _QUANTILES}
    cuts = [float(_spelled(cut)) for cut in round_numbers(quantiles["5"], quantiles["95"], _STEPS)]
    if len(cuts) == 1:
        # Nearly all have one value, which is seldom a round one.
        cuts = [_at_most(float(ordered.quantile(0.05) or 0.0))]
    kept = ordered.len() - ordered.search_sorted(pl.Series(cuts, dtype=pl.Float32), side="left")
    outside = _outside(ordered) if is_label else 0
    return Spread(
        quantiles, dict(zip(map(_spelled, cuts), _shares(kept, ordered.len()), strict=True)), outside
    )


def _at(ordered: pl.Series, share: float) -> float:
    return round(float(ordered.quantile(share, interpolation="linear") or 0.0), 6)


def _shares(kept: pl.Series, whole: int) -> Sequence[float]:
    return [round(count / whole, 6) for count in kept]


def _outside(values: pl.Series) -> int:
    return int(((values < _LABELS[0]) | (values > _LABELS[1])).sum())


def _at_most(value: float) -> float:
    """The greatest number of six digits that is not above the value."""
    spelled = float(_spelled(value))
    if spelled <= value:
        return spelled
    return float(_spelled(value - 10.0 ** (math.floor(math.log10(abs(value))) - 5)))


def _spelled(cut: float) -> str:
    return f"{cut:g}"
