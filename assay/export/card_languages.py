"""The languages of the records that were kept, for the card."""

from __future__ import annotations

from collections import Counter

import polars as pl

from assay.read.kept_languages import languages_of
from assay.storage.artifacts import read_artifact
from assay.storage.home import Home
from assay.storage.manifests import Converted, Filtered

#: What fewer of the records have is no language of a dataset, but a slip of the detector.
_LEAST_SHARE = 0.01


def languages_kept(converted: Converted, filtered: Filtered, home: Home) -> tuple[str, ...]:
    """The languages of at least 1% of the kept records (ISO 639-1), that of the most first.

    A language that is not sure counts for none.
    """
    counts: Counter[str] = Counter()
    for piece, decided in zip(converted.pieces, filtered.pieces, strict=True):
        decisions = read_artifact(decided.decisions, home, ["row", "outcome"])
        kept = decisions.filter(pl.col("outcome") == "kept")
        found = kept.join(languages_of(piece, home), on="row", how="inner")["language"].drop_nulls()
        counts.update(dict(found.value_counts().iter_rows()))
    least = _LEAST_SHARE * filtered.counts.ok
    return tuple(
        name for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])) if count >= least
    )
