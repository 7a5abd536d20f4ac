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
    """Run ``act`` in a child that kills itself with -9 at the ``number``th moment of its work on a disk.

    True where it was killed, False where it came to its end first.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def count() -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

        def counted(real: Callable[P, T], *, also_after: bool) -> Callable[P, T]:
            def call(*arguments: P.args, **options: P.kwargs) -> T:
                count()
                result = real(*arguments, **options)
                if also_after:
                    count()
                return result

            return call

        for name in CALLS:
            # A file that is open and still empty is a moment of its own.
            setattr(os, name, counted(getattr(os, name), also_after=name == "open"))
        status = 3
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child failed by itself: {status}"
    return status == signal.SIGKILL
