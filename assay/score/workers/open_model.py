"""The one reward model that this process has open."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import TypeVar

from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import ModelSpec, RewardModel

Done = TypeVar("Done")

#: A fingerprint, an endpoint, and what was chosen of how the model is read.
_Key = tuple[str, Endpoint | None, str | None, bool | None]

_open: dict[_Key, RewardModel] = {}
_users = 0
_changed = threading.Condition()


def using(spec: ModelSpec, work: Callable[[RewardModel], Done]) -> Done:
    """What ``work`` gives for the model, which is loaded the first time that this process is asked for it.

    Several threads may use the same one. Who wants another waits until nobody uses this one, which is then
    let go: two would share a device, and how much of it each finds would decide their batches.
    """
    global _users
    model = _taken(spec)
    try:
        return work(model)
    finally:
        # A reference that is left here would keep it beside the next.
        del model
        with _changed:
            _users -= 1
            _changed.notify_all()


def opened(spec: ModelSpec) -> RewardModel:
    """The model, for a process that uses no other at the same time."""
    return using(spec, lambda model: model)


def let_go() -> None:
    """Hold no model here any more, once nobody uses it."""
    with _changed:
        _changed.wait_for(lambda: not _users)
        _open.clear()


def _taken(spec: ModelSpec) -> RewardModel:
    global _users
    # A service that has moved is the same model, and yet to be asked at its new address. A model that is
    # read as it would be anyway is the same too, and yet has nothing more to say of it.
    key = (spec.fingerprint, spec.endpoint, spec.read_at, spec.add_bos)
    with _changed:
        _changed.wait_for(lambda: key in _open or not _users)
        if key not in _open:
            _open.clear()
            module, _, name = spec.opener.partition(":")
            _open[key] = getattr(importlib.import_module(module), name)(spec)
        _users += 1
        return _open[key]
