"""Assay rates every assistant turn of a chat dataset and writes labelled training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assay.core.versions import VERSION

if TYPE_CHECKING:
    from assay.api import Chats, Rated, query_reward_model, query_reward_model_async, read

__version__ = VERSION

__all__ = ["Chats", "Rated", "__version__", "query_reward_model", "query_reward_model_async", "read"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``import assay`` alone stays cheap."""
    if name in __all__:
        from assay import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
