"""Checks that a loaded model must pass before any of its scores is used."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from assay.core.errors import ModelFault
from assay.rewards.local import continuing, heads
from assay.rewards.local.network import Network

#: How far the engine may be from transformers' own forward pass, relative to the score (or to one, for
#: smaller ones). The 16-bit types carry 8 to 11 bits of mantissa.
_TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


class Sharing(NamedTuple):
    """Whether sequences that begin alike may share their beginning."""

    refused_because: str | None
    """None where they may."""
    cached_token_cost: float = 0.0
    """Memory that is kept for a token of a beginning, in tokens of working memory."""


def check_positions(network: Network) -> None:
    """Raise ``ModelFault`` where a longer neighbour, or a later turn, would change a turn's positions.

    Such an embedding keeps its angles up to the length that it was trained at, before it was stretched.
    """
    config = network.text_config
    rope = continuing.length_dependent_rope(config)
    if rope is None:
        return
    still = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if network.spec.max_tokens > still:
        raise ModelFault(
            f"model {network.spec.name}: beyond {still} tokens its position embedding "
            f"({rope['rope_type']}) changes with the length of what it is shown, so a turn's score would "
            f"depend on what goes with it; --max-tokens {still} keeps below that"
        )


@torch.inference_mode()
def check_against_transformers(network: Network) -> None:
    """Raise ``ModelFault`` where this engine would not give the numbers that the model's card means.

    It is compared with the model's own forward pass, and no score may depend on what follows its turn. A
    model whose head is built from weights has no forward pass of its own that may run; tests compare that
    head with its card.
    """
    ids = _ids_to_check_with(network)
    half = ids.shape[1] // 2
    position = 0 if network.family.pair else -1
    hidden = network.hidden(ids, network.all_seen(ids))
    ours = network.read(hidden[:, position], hidden[:, half])
    if ours.shape[1] != len(network.spec.attributes):
        raise _unexpected_outputs(network, ours)
    theirs = heads.own_call(network.spec.family, network.model, ids)
    if theirs is not None:
        theirs = theirs.float()
        if ours.shape != theirs.shape:
            raise _unexpected_outputs(network, theirs)
        if not agree(network, ours, theirs):
            raise ModelFault(
                f"model {network.spec.name}: this engine reads {ours.tolist()} where transformers itself "
                f"gives {theirs.tolist()}; its head does more than one linear layer and is not supported"
            )
    begun = ids[:, :half]
    alone = network.hidden(begun, network.all_seen(begun))[:, position]
    if network.family.pair:
        mask = (torch.arange(ids.shape[1], device=network.device) < half).long()[None]
        followed, why = network.hidden(ids, mask)[:, 0], "a score depends on the padding after a text"
    else:
        followed = hidden[:, half - 1]
        why = "a position's state depends on what follows it, so it is no causal model"
    if not agree(network, network.read(followed, followed), network.read(alone, alone)):
        raise ModelFault(f"model {network.spec.name}: {why}; such models are not supported")


@torch.inference_mode()
def sharing(network: Network) -> Sharing:
    """Whether beginnings are shared: not with every kind of model, and not where that changes scores.

    Tries two beginnings of unequal length in one batch, and rests of unequal length behind them.
    """
    if network.family.pair:
        return Sharing("an encoder reads both ways")
    reason = continuing.why_not(network.backbone)
    if reason is not None:
        return Sharing(reason)
    (ids,) = _ids_to_check_with(network).cpu().numpy()
    starts, owners = [len(ids) // 2, len(ids) // 4], [0, 1, 1]
    ends = [len(ids), len(ids), len(ids) * 3 // 8]
    begun = network.begin([ids[:start] for start in starts])
    rests = [ids[starts[owner] : end] for owner, end in zip(owners, ends, strict=True)]
    hidden = begun.continued(network.on_device(np.array(owners)), network.padded(rests))
    for row, (rest, end) in enumerate(zip(rests, ends, strict=True)):
        ours = hidden[row, len(rest) - 1][None]
        whole = network.hidden(network.padded([ids[:end]]))[:, -1]
        if not agree(network, network.read(ours, ours), network.read(whole, whole)):
            return Sharing("a sequence that continues a beginning is scored otherwise than whole")
    config = network.text_config
    # A pass holds, for a token, about two rows of its MLP and four of the model's width at a time.
    width = config.hidden_size
    working = 2 * getattr(config, "intermediate_size", 4 * width) + 4 * width
    return Sharing(None, begun.values_a_token / working)


def _ids_to_check_with(network: Network) -> torch.Tensor:
    """``[1, 32]`` different token ids, none of them the padding token, the appended token last."""
    text_config = network.text_config
    drawn = np.random.default_rng(0).permutation(min(text_config.vocab_size, 4096))[:33]
    pad = text_config.pad_token_id
    ids = drawn[drawn != (-1 if pad is None else pad)][:32].astype(np.int64)
    if network.spec.appended_token_id is not None:
        ids[-1] = network.spec.appended_token_id
    return network.on_device(ids[None])


def _unexpected_outputs(network: Network, numbers: torch.Tensor) -> ModelFault:
    spec = network.spec
    return ModelFault(
        f"model {spec.name}: it gives {numbers.shape[-1]} numbers, {len(spec.attributes)} are "
        f"expected ({', '.join(spec.attributes)})"
    )


def agree(network: Network, ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether both are the same scores, as far as the model's precision goes."""
    # A model that is spread over devices brings the output of its own forward pass back to the first.
    theirs = theirs.to(ours.device)
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return True  # reported turn by turn, as `not_finite`
    tolerance = _TOLERANCE[network.spec.dtype]
    return bool(((ours - theirs).abs() <= tolerance * theirs.abs().clamp(min=1)).all())
