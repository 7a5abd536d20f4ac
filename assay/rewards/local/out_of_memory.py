"""Which failures of a device mean that memory ran out, and which that the device is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from assay.core.errors import DeviceLost

#: How torch names the failure on a CPU, where it raises no OutOfMemoryError (c10/core/CPUAllocator.cpp).
_CPU_ALLOCATOR = "DefaultCPUAllocator: "

#: How the text of every other failure of CUDA begins (c10/cuda/CUDAException.cpp).
_CUDA_ERROR = "CUDA error: "

#: What such a text holds where cuBLAS found no memory for itself. It takes it beside torch, once a thread,
#: and torch may hold all there is for later (github.com/pytorch/pytorch/issues/128601). A device that is
#: broken can say the same.
_NO_HANDLE = ("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")

Worked = TypeVar("Worked")


def unless_out_of_memory(work: Callable[[], Worked]) -> Worked | None:
    """What ``work`` gives; None where memory did not suffice for it. It may be called twice.

    Raises ``DeviceLost`` for any other error of CUDA: it is sticky, every later call would raise it too.
    """
    try:
        try:
            return work()
        except RuntimeError as error:
            if not _says(error, _NO_HANDLE):
                raise
        torch.cuda.empty_cache()
        return work()
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        if _CPU_ALLOCATOR in str(error) or _says(error, ("out of memory",)):
            return None
        if _CUDA_ERROR in str(error):
            first_line = str(error).partition("\n")[0]
            raise DeviceLost(f"the GPU is lost to this process: {first_line}") from error
        raise


def _says(error: RuntimeError, words: tuple[str, ...]) -> bool:
    """Whether it is an error of CUDA with one of these words."""
    return _CUDA_ERROR in str(error) and any(word in str(error) for word in words)
