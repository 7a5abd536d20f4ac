"""Where Dask runs: processes on this machine, one worker a GPU, or a scheduler's address."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.errors import ClusterFault

if TYPE_CHECKING:
    from distributed import Client

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

_SETTINGS = {
    # Deaths of a worker that a shard survives before it is suspected of killing them.
    "distributed.scheduler.allowed-failures": 1,
    # A worker that says nothing for so long (stopped, swapping, unplugged) is given up.
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.admin.tick.limit": "60s",
    "distributed.comm.timeouts.connect": "30s",
}

_ARRIVAL_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which workers score."""

    workers: int | None = None
    """Processes on this machine; None: one a CPU core, or one a GPU where there are any."""
    scheduler_address: str | None = None
    """A running Dask scheduler; then ``workers`` is not looked at."""


@contextmanager
def connected(options: ClusterOptions) -> Iterator[Client]:
    """Yield a client whose workers have arrived; what was started here is stopped at the end.

    Raises ``ClusterFault`` where no worker arrives within a minute.
    """
    import dask
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(_SETTINGS):
        if options.scheduler_address:
            try:
                client = Client(options.scheduler_address, set_as_default=False, timeout="5s")
            except OSError as error:
                raise ClusterFault(
                    f"no Dask scheduler answers at {options.scheduler_address}: start one with `dask "
                    "scheduler`, or leave ASSAY_SCHEDULER_ADDRESS empty to score on this machine"
                ) from error
            with client:
                _await_workers(client, 1)
                yield client
            return
        gpus = visible_gpus()
        if gpus:
            from dask_cuda import LocalCUDACluster

            cluster = LocalCUDACluster(
                n_workers=min(gpus, options.workers or gpus),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
            )
        else:
            cluster = LocalCluster(
                n_workers=options.workers or usable_cores(),
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                env=WORKER_ENVIRONMENT,
                silence_logs=logging.CRITICAL,
            )
        with cluster, Client(cluster, set_as_default=False) as client:
            _await_workers(client, len(cluster.workers))
            yield client


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> int:
    """NVIDIA GPUs that CUDA programs started from here would see; 0 where there is no driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([device for device in chosen.split(",") if device.strip() not in ("", "-1")])
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return len(listed.stdout.splitlines()) if listed.returncode == 0 else 0


def _await_workers(client: Client, count: int) -> None:
    try:
        client.wait_for_workers(count, timeout=_ARRIVAL_SECONDS)
    except TimeoutError as error:
        raise ClusterFault(
            f"{count} Dask workers were expected and did not arrive within {_ARRIVAL_SECONDS} s"
        ) from error
