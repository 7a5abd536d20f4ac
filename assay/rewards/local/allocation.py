"""Whether the C library keeps the memory that a forward pass frees."""

from __future__ import annotations

import ctypes
import sys

#: glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Blocks up to this size are kept for the next layer.
_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Have glibc keep large blocks that are freed; False where the C library is another one.

    A layer's intermediate results are tens of megabytes. By default each is mapped anew and given back, and
    the kernel clears every page of it each time. That takes a sixth of the CPU time of a pass (measured on a
    layer 448 wide, conversations of 2,000 tokens).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all([mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES), mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)])
