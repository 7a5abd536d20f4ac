"""Hidden states of sequences that continue a beginning whose keys and values are kept."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from transformers.cache_utils import Cache, DynamicLayer

#: Attention that takes an additive mask, which hides the padding behind a row's own beginning.
_MASKED_ATTENTION = frozenset({"sdpa", "eager"})

#: Rotary embeddings whose angles depend on how long the whole sequence is: a beginning alone gets others.
_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})


def why_not(backbone: Any) -> str | None:
    """The reason why a beginning cannot be continued in this model; None where there is none.

    The caller still has to try whether the states come out right.
    """
    config = backbone.config.get_text_config()
    if getattr(config, "_attn_implementation", None) not in _MASKED_ATTENTION:
        return f"its attention ({getattr(config, '_attn_implementation', None)}) takes no mask of our own"
    taken = inspect.signature(backbone.forward).parameters
    for needed in ("attention_mask", "position_ids", _cache_keyword(backbone), "use_cache"):
        if needed not in taken:
            return f"{type(backbone).__name__} takes no {needed}"
    if length_dependent_rope(config) is not None:
        return "its position embedding depends on the length of the whole"
    for layer in transformers.DynamicCache(config=config).layers:
        if type(layer) is not DynamicLayer:
            return f"a {type(layer).__name__} forgets the beginning"
    return None


def _cache_keyword(backbone: Any) -> str:
    """What ``forward`` calls keys and values that are at hand: ``cache`` from transformers 5.24 on."""
    return "cache" if "cache" in inspect.signature(backbone.forward).parameters else "past_key_values"


def length_dependent_rope(config: Any) -> dict[str, Any] | None:
    """The parameters of a rotary embedding whose angles depend on the length of the whole, if it is one."""
    rope = getattr(config, "rope_parameters", None) or {}
    parts = [part for part in (rope, *rope.values()) if isinstance(part, dict)]
    return next((part for part in parts if part.get("rope_type") in _LENGTH_DEPENDENT_ROPE), None)


class Beginnings:
    """Some beginnings, put through the model; ``continued`` gives what stands behind them."""

    def __init__(self, backbone: Any, token_ids: torch.Tensor, lengths: torch.Tensor) -> None:
        """Put ``[beginnings, time]`` ids, right-padded to ``lengths``, through ``backbone``."""
        self._backbone = backbone
        self._lengths = lengths
        self._cache_keyword = _cache_keyword(backbone)
        cache: Any = transformers.DynamicCache(config=backbone.config)
        result = backbone(input_ids=token_ids, use_cache=True, **{self._cache_keyword: cache})
        self.hidden: torch.Tensor = result.last_hidden_state
        """``[beginnings, time, hidden]``; states of padding mean nothing."""
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = [
            (layer.keys, layer.values) for layer in cache.layers
        ]

    @property
    def values_a_token(self) -> int:
        """Numbers kept for one token: its keys and values in all layers."""
        return sum(part[0, :, 0].numel() for layer in self._layers for part in layer)

    def continued(self, owners: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """``[rows, time, hidden]`` of ``[rows, time]`` ids, row *r* standing behind beginning ``owners[r]``.

        Rows are right-padded: no token of a causal model can see what stands behind it.
        """
        lengths = self._lengths[owners]
        time = torch.arange(token_ids.shape[1], device=token_ids.device)
        layers: list[Any] = [_Continued(keys, values, owners) for keys, values in self._layers]
        hidden: torch.Tensor = self._backbone(
            input_ids=token_ids,
            attention_mask=self._mask(lengths, time),
            position_ids=lengths[:, None] + time,
            use_cache=True,
            **{self._cache_keyword: Cache(layers=layers)},
        ).last_hidden_state
        return hidden

    def _mask(self, lengths: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """``[rows, 1, time, beginning + time]``: 0 where a token may look, very negative where it may not."""
        beginning = torch.arange(self.hidden.shape[1], device=time.device)
        another = (beginning >= lengths[:, None])[:, None].expand(-1, len(time), -1)
        after = (time > time[:, None]).expand(len(lengths), -1, -1)
        unseen = torch.cat([another, after], dim=-1)[:, None]
        width = unseen.shape[-1]
        # CUDA's kernels copy a mask in every layer unless its rows are a multiple of eight apart.
        apart = -(-width // 8) * 8
        mask = torch.zeros((*unseen.shape[:-1], apart), dtype=self.hidden.dtype, device=time.device)
        return mask[..., :width].masked_fill_(unseen, torch.finfo(mask.dtype).min)


class _Continued(DynamicLayer):
    """A layer's keys and values of the beginnings, to which those of the rows are joined, and not kept."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, owners: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._begun = keys, values
        # The length of the cache is read from this.
        self.keys, self.values = keys, values
        self._owners = owners.to(keys.device)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values that the rows attend to, ``[rows, heads, beginning + time, size]``."""
        keys, values = (
            torch.cat([begun[self._owners], own], dim=-2)
            for begun, own in zip(self._begun, (key_states, value_states), strict=True)
        )
        return keys, values
