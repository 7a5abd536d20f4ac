"""The one reward model that this process has loaded."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from assay.rewards.protocol import RewardModel
from assay.rewards.spec import LocalSpec

Done = TypeVar("Done")

#: A fingerprint, and the user's choices of how the model is read.
_Key = tuple[str, str | None, bool | None]

_open: dict[_Key, RewardModel] = {}
_users = 0
_changed = threading.Condition()


def using(spec: LocalSpec, work: Callable[[RewardModel], Done]) -> Done:
    """What ``work`` returns for the model. This process loads the model when it first uses it.

    Several threads may use the same model. A thread that needs another model waits until nobody uses this
    one, which is then released. Two models would share a device, and their batches would depend on how much
    memory each of them finds.
    """
    global _users
    model = _taken(spec)
    try:
        return work(model)
    finally:
        # A reference that stays here would keep the model in memory beside the next one.
        del model
        with _changed:
            _users -= 1
            _changed.notify_all()


def opened(spec: LocalSpec) -> RewardModel:
    """The model, for a process that uses no other at the same time."""
    return using(spec, lambda model: model)


def let_go() -> None:
    """Release the model, once nobody uses it."""
    with _changed:
        _changed.wait_for(lambda: not _users)
        _open.clear()


def _taken(spec: LocalSpec) -> RewardModel:
    global _users
    # Two specs can share a fingerprint: one whose reading the user chose, and one that is read so by default.
    # Only the second makes a remark, so they are two models here.
    key = (spec.fingerprint, spec.read_at, spec.add_bos)
    with _changed:
        _changed.wait_for(lambda: key in _open or not _users)
        if key not in _open:
            _open.clear()
            module, _, name = spec.opener.partition(":")
            _open[key] = getattr(_imported(module), name)(spec)
        _users += 1
        return _open[key]


def _imported(name: str) -> ModuleType:
    """The module of that name, with torch and transformers below it.

    During the import Python does not search for garbage, and later it does not search what is there by then:
    what was imported stays in use, and the search would take a third of the import's time. A former model can
    be garbage, so this is done before the first model alone. (All models here have one module.)
    """
    if name in sys.modules:
        return sys.modules[name]
    was_searching = gc.isenabled()
    gc.disable()
    try:
        module = importlib.import_module(name)
        gc.freeze()
    finally:
        if was_searching:
            gc.enable()
    return module
