"""Scores as other tools compute them, to compare with: padded on the left, with a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from assay.rewards.local.model import LocalRewardModel
from assay.rewards.protocol import Request


@torch.inference_mode()
def last_scores_padded_left(
    model: LocalRewardModel, requests: Sequence[Request]
) -> list[tuple[float, ...]] | None:
    """The values of the last requested turn of each, all put through in one batch. None for an encoder."""
    network = model.network
    if network.family.pair:
        return None
    passes = [item.passes[-1] for item in model.renderer.render(requests)]
    longest = max(len(one.token_ids) for one in passes)
    padding = torch.tensor([longest - len(one.token_ids) for one in passes])
    token_ids = torch.zeros((len(passes), longest), dtype=torch.int64)
    for row, one in enumerate(passes):
        token_ids[row, int(padding[row]) :] = torch.from_numpy(one.token_ids)
    mask = (torch.arange(longest) >= padding[:, None]).long()
    hidden = network.backbone(
        input_ids=token_ids.to(network.device),
        attention_mask=mask.to(network.device),
        position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(network.device),
        use_cache=False,
    ).last_hidden_state
    rows = torch.arange(len(passes))
    reads = [one.reads[-1] for one in passes]
    ends = padding + torch.tensor([read.position for read in reads])
    gates = padding + torch.tensor([read.gate or 0 for read in reads])
    values = network.read(hidden[rows, ends], hidden[rows, gates]).cpu().numpy()
    return [tuple(map(float, row)) for row in values]
