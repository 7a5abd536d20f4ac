"""The one reward model that this process has open."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import ModelSpec, RewardModel

Key = tuple[str, Endpoint | None]

_open: dict[Key, RewardModel] = {}
_users = 0
_changed = threading.Condition()


@contextmanager
def in_use(spec: ModelSpec) -> Iterator[RewardModel]:
    """Yield the model, loaded the first time that this process is asked for it; the one before is let go.

    Several threads may have the same one. Who wants another waits until nobody has this one: two would
    share a device, and how much of it each finds would decide their batches.
    """
    global _users
    # A service that has moved is the same model, and yet to be asked at its new address.
    key = (spec.fingerprint, spec.endpoint)
    with _changed:
        _changed.wait_for(lambda: key in _open or not _users)
        if key not in _open:
            _open.clear()
            module, _, name = spec.opener.partition(":")
            _open[key] = getattr(importlib.import_module(module), name)(spec)
        model = _open[key]
        _users += 1
    try:
        yield model
    finally:
        with _changed:
            _users -= 1
            _changed.notify_all()


def opened(spec: ModelSpec) -> RewardModel:
    """The model, for a process that uses no other at the same time."""
    with in_use(spec) as model:
        return model
