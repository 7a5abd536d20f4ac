"""Plan the shards, score them, gather every turn's score."""

from __future__ import annotations

from dataclasses import dataclass

from assay.cluster import ClusterOptions
from assay.home import Home
from assay.manifest import Converted, Scored
from assay.progress import Progress, Silent
from assay.rewards.protocol import ModelSpec

STAGE_VERSION = 1
DEFAULT_SHARD_TOKENS = 1 << 18


@dataclass(frozen=True, slots=True)
class Preview:
    """What scoring would have to do."""

    records: int
    turns: int
    distinct_turns: int
    stored_turns: int
    """Distinct turns that the store already has."""
    planned_records: int
    estimated_tokens: int
    """Of the planned records, from their bytes."""


@dataclass(frozen=True, slots=True)
class ShardWork:
    """What one shard took."""

    shard: int
    turns: int
    failed: int
    tokens: int
    seconds: float
    worker: str


@dataclass(frozen=True, slots=True)
class ScoringWork:
    """What this run did for its scores. In no cache: a run whose score stage is cached did nothing."""

    turns_scored: int = 0
    """Distinct turns that the model rated in this run."""
    tokens: int = 0
    seconds: float = 0.0
    shards: tuple[ShardWork, ...] = ()
    resumed_plan: bool = False


def preview(converted: Converted, model: ModelSpec, *, home: Home) -> Preview:
    """What a run would score; nothing is written."""
    raise NotImplementedError


def score(
    converted: Converted,
    model: ModelSpec,
    *,
    home: Home,
    cluster: ClusterOptions,
    shard_tokens: int = DEFAULT_SHARD_TOKENS,
    progress: Progress = Silent(),  # noqa: B008
) -> tuple[Scored, ScoringWork]:
    """The scores of every turn, and what this run did for them."""
    raise NotImplementedError
