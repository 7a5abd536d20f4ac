"""How many tokens a text has, as a model's tokenizer counts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from assay.rewards import tokenizer
from assay.rewards.spec import LocalSpec, ModelSpec

Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True)
class TokenizerPlace:
    """Where a local model's tokenizer is. The model's fingerprint covers what it does."""

    folder: str
    whose: str
    remote_code: bool = False


def place_of(model: ModelSpec) -> TokenizerPlace | None:
    """Where the model's tokenizer is; None for a service, which has its own."""
    if not isinstance(model, LocalSpec):
        return None
    return TokenizerPlace(model.folder, f"model {model.name}", model.remote_code)


@cache
def counter(place: TokenizerPlace) -> Count:
    """A function that counts the tokens of texts, without those that a tokenizer puts around them."""
    # Loading takes seconds, so it waits until somebody counts.
    loaded = tokenizer.load(place.folder, whose=place.whose, remote_code=place.remote_code)

    def count(texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        return [len(ids) for ids in loaded(list(texts), add_special_tokens=False)["input_ids"]]

    return count
