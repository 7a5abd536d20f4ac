"""A process that kills itself with -9 at a chosen moment of its work on a disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: What changes a disk, or waits until it is changed. Opening for reading is among it.
CALLS = ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir", "chmod", "open", "truncate")


def killed_at(number: int, act: Callable[[], object]) -> bool:
    """Run ``act`` in a child that kills itself with -9 before its ``number``th call that changes a disk.

    True where it was killed, False where it came to its end first.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real: Callable[P, T]) -> Callable[P, T]:
            def call(*arguments: P.args, **options: P.kwargs) -> T:
                nonlocal calls
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        status = 3
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child failed by itself: {status}"
    return status == signal.SIGKILL
