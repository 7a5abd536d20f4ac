"""What every Dask worker that a run starts on this machine is given, on CPUs and on GPUs."""

from __future__ import annotations

import os

#: One computing thread a worker: how a matrix product is split over threads changes its last bits, and
#: scores must not depend on how many workers there are.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

#: Dask would give each worker a part of the machine's memory, kill it near that, and give it no work before.
#: A model's weights count towards it while they are read, though they are mapped and shared: a worker
#: would die of loading, or be paused for ever. The system's own limits hold.
NO_MEMORY_LIMIT = None


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
