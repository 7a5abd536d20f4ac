"""What planning finds, all at once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from assay.rewards.spec import ModelSpec
from assay.score import plan
from assay.score.store import ScoreStore
from assay.storage.home import Home
from assay.storage.manifests import Converted


def missing(converted: Converted, model: ModelSpec, home: Home) -> pl.DataFrame:
    """The turns that the store lacks."""
    store = ScoreStore(home, model.fingerprint, model.attributes).open()
    with TemporaryDirectory() as folder:
        found = list(plan.unstored(converted, store, home, Path(folder)).parts)
    empty = pl.DataFrame(schema={"piece": pl.UInt32, "row": pl.UInt32, "turn": pl.UInt32, "key": pl.Binary})
    return pl.concat(found) if found else empty


def written(converted: Converted, model: ModelSpec, home: Home, *, shard_tokens: int) -> plan.Plan:
    """A plan of the turns that the store lacks."""
    store = ScoreStore(home, model.fingerprint, model.attributes).open()
    with TemporaryDirectory() as name:
        folder = Path(name)
        parts = plan.unstored(converted, store, home, folder).parts
        return plan.write(parts, converted, model, home, folder, shard_tokens=shard_tokens)
