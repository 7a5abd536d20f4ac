"""Memory of a device that a model had, for other processes."""

from __future__ import annotations

import gc

import torch


def give_back() -> None:
    """Leave to others what models that nobody holds any more had: torch would keep it for the next one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
