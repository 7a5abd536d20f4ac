"""How large a shard is, unless a run says it: by how long it takes to score.

A run that is stopped loses the shards that are under way, and with fewer shards than workers some workers
have nothing to do. So a shard is cut by time: 20 s where there is little to do, two minutes at most. The time
is estimated from the model's size and the kind of device. No clock is looked at and no worker is counted, so
the same data give the same plan. The estimate is rough: a device may be several times as fast or as slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.rewards.spec import LocalSpec
from assay.rewards.weights import multiplied_weights

#: Of a service. What it has answered is stored every 20 s, whatever the size of its shards.
SERVICE_TOKENS = 1 << 18

#: So many shards are cut where that makes them neither too short nor too long: a few for each of 64 workers.
_WANTED_SHARDS = 256

#: So many tokens fill the passes of any device; a larger shard only makes fewer segments of a long run.
_FULL_TOKENS = 1 << 18

#: A weight is multiplied and added once a token.
_OPERATIONS_A_WEIGHT = 2


@dataclass(frozen=True, slots=True)
class Device:
    """What one worker computes on, roughly."""

    operations_a_second: float
    seconds_a_token: float
    """What a token takes that no weight is multiplied with: text, attention, starting a pass."""
    least_seconds: float
    """A shorter shard would leave its passes too little to sort by length."""
    most_seconds: float
    most_tokens: int
    """However fast it is. A worker holds the text of a shard in memory, and may be sent it."""


#: One core. 84 billion operations a second were seen on an AMD EPYC with AVX-512; a laptop has fewer.
CPU = Device(5e10, 3e-5, least_seconds=20, most_seconds=120, most_tokens=1 << 18)

#: One GPU, in bf16. Between what a T4 does and what an H100 does, and not measured.
GPU = Device(1e14, 1e-6, least_seconds=40, most_seconds=120, most_tokens=1 << 20)


def tokens_a_shard(total_tokens: int, model: LocalSpec, device: Device) -> int:
    """Estimated tokens of a shard where ``total_tokens`` are to be scored, at least 1.

    The total is shared out evenly: work for a shard and a half makes two of three quarters.
    """
    a_token = (
        _OPERATIONS_A_WEIGHT * multiplied_weights(model) / device.operations_a_second + device.seconds_a_token
    )
    least = min(device.least_seconds / a_token, _FULL_TOKENS)
    most = min(device.most_seconds / a_token, device.most_tokens)
    size = min(max(total_tokens / _WANTED_SHARDS, least), most)
    shards = max(1, math.ceil(total_tokens / size))
    return max(1, math.ceil(total_tokens / shards))
