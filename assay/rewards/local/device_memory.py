"""Memory of a device that torch keeps after a model is gone."""

from __future__ import annotations

import gc

import torch


def give_back() -> None:
    """Free the device memory of models that nobody holds any more: torch would keep it for the next one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
