"""How many tokens a shard holds, unless a run's options state it: as many as a worker scores in a fair time.

A run that is stopped loses the shards that are being scored; and if there are fewer shards than workers, some
workers have nothing to do. So a shard takes about 20 s where there is little to score, and two minutes at
most. The time is estimated from the model's size and the kind of device, not measured, and the number of
workers plays no part: so the same data give the same plan. The estimate is rough: a device may be several
times as fast or as slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.rewards.spec import LocalSpec
from assay.rewards.weights import multiplied_weights

#: The size of a service's shards. Its answers are stored every 20 s, whatever this size is.
SERVICE_TOKENS = 1 << 18

#: How many shards to cut where that makes them neither too short nor too long: a few for each of 64 workers.
_WANTED_SHARDS = 256

#: This many tokens fill the passes of any device; a larger shard only makes fewer segments of a long run.
_FULL_TOKENS = 1 << 18

#: Each token multiplies each weight once and adds the product once.
_OPERATIONS_A_WEIGHT = 2


@dataclass(frozen=True, slots=True)
class Device:
    """What one worker computes on, roughly."""

    operations_a_second: float
    seconds_a_token: float
    """Time per token for what multiplies no weight: text, attention, starting a pass."""
    least_seconds: float
    """A shorter shard holds too few texts to be sorted into passes of one length."""
    most_seconds: float
    most_tokens: int
    """The limit for a fast device: a worker holds the text of a shard in memory, and may be sent it."""


#: One core. 84 billion operations a second were seen on an AMD EPYC with AVX-512; a laptop has fewer.
CPU = Device(5e10, 3e-5, least_seconds=20, most_seconds=120, most_tokens=1 << 18)

#: One GPU, in bf16. Between what a T4 does and what an H100 does, and not measured.
GPU = Device(1e14, 1e-6, least_seconds=40, most_seconds=120, most_tokens=1 << 20)


def tokens_a_shard(total_tokens: int, model: LocalSpec, device: Device) -> int:
    """Estimated tokens of a shard where ``total_tokens`` are to be scored; at least 1.

    All shards get about the same size: work for one and a half full shards makes two of three quarters.
    """
    a_token = (
        _OPERATIONS_A_WEIGHT * multiplied_weights(model) / device.operations_a_second + device.seconds_a_token
    )
    least = min(device.least_seconds / a_token, _FULL_TOKENS)
    most = min(device.most_seconds / a_token, device.most_tokens)
    size = min(max(total_tokens / _WANTED_SHARDS, least), most)
    shards = max(1, math.ceil(total_tokens / size))
    return max(1, math.ceil(total_tokens / shards))
