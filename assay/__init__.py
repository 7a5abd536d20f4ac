"""Assay rates every assistant turn of a chat dataset and writes labelled training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.api import query_reward_model, query_reward_model_async

__version__ = "0.1.0"

__all__ = ["__version__", "query_reward_model", "query_reward_model_async"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``import assay`` alone stays cheap."""
    if name in ("query_reward_model", "query_reward_model_async"):
        from assay import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
