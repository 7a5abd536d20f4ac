"""Which of the failures of a device mean that memory did not suffice, and which that it is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from assay.errors import DeviceLost

#: How torch names the failure on a CPU, where it raises no OutOfMemoryError (c10/core/CPUAllocator.cpp).
_CPU_ALLOCATOR = "DefaultCPUAllocator: "

#: How the text of every other failure of CUDA begins (c10/cuda/CUDAException.cpp).
_CUDA_ERROR = "CUDA error: "

#: What such a text holds where memory did not suffice: cuBLAS takes its own beside torch's, for each thread.
_NO_ROOM = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")

Worked = TypeVar("Worked")


def unless_out_of_memory(work: Callable[[], Worked]) -> Worked | None:
    """What ``work`` gives, None where memory did not suffice for it.

    Raises ``DeviceLost`` for any other error of CUDA: it is sticky, every later call would raise it too.
    """
    try:
        return work()
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        told = str(error)
        if _CPU_ALLOCATOR in told:
            return None
        if _CUDA_ERROR in told and any(words in told for words in _NO_ROOM):
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return None
        if _CUDA_ERROR in told:
            first_line = told.partition("\n")[0]
            raise DeviceLost(f"the GPU is lost to this process: {first_line}") from error
        raise
