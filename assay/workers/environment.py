"""The environment of every Dask worker that a run starts on this machine, on CPUs and on GPUs."""

from __future__ import annotations

import os

#: One computing thread per worker: the number of threads changes the last bits of a matrix product, and
#: scores must not depend on the number of workers.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

#: Set in processes that were started for a GPU: one that cannot use it fails, and does not take days on a
#: CPU.
EXPECTS_CUDA = "ASSAY_EXPECTS_CUDA"

#: By default Dask gives each worker a share of the machine's memory, pauses it near that limit, and kills it
#: beyond. It counts a model's weights while they are read, though they are mapped and shared: loading would
#: kill a worker, or pause it for ever. The system's own limits hold.
NO_MEMORY_LIMIT = None


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
