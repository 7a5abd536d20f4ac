"""Dask workers on this machine's GPUs: one per GPU, or one per group of GPUs that share a model."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from assay.core.errors import ClusterFault, UserMistake
from assay.workers.environment import EXPECTS_CUDA, NO_MEMORY_LIMIT, WORKER_ENVIRONMENT, usable_cores
from assay.workers.steady_clock import PRELOAD

if TYPE_CHECKING:
    from distributed import Security, SpecCluster

#: Two threads: while one shard is on the GPU, the next is rendered and tokenized.
GPU_WORKER_THREADS = 2

#: A driver that takes longer than this to answer hangs.
_LISTING_SECONDS = 60

_CHOSEN = "CUDA_VISIBLE_DEVICES"

#: ``GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-…)``; lines of MIG devices are indented.
_LISTED = re.compile(r"^GPU (\d+): .*\(UUID: (GPU-[^)]+)\)", re.MULTILINE)


def packages_are_here() -> bool:
    """Whether the packages of the extra ``gpu`` are installed."""
    return importlib.util.find_spec("dask_cuda") is not None


def visible_devices() -> list[str]:
    """The NVIDIA GPUs that this process may use, by ``nvidia-smi``'s numbers (or MIG devices' names).

    ``CUDA_VISIBLE_DEVICES`` chooses among them by number, by UUID, or by the beginning of a UUID. As in CUDA,
    an unknown name ends the list. Raises ``ClusterFault`` where the driver hangs.
    """
    chosen = os.environ.get(_CHOSEN)
    none_chosen = chosen is not None and chosen.split(",")[0].strip() in ("", "-1")
    if none_chosen or not shutil.which("nvidia-smi"):
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_LISTING_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterFault(
            f"`nvidia-smi --list-gpus` did not answer within {_LISTING_SECONDS} s: the driver hangs. "
            "Set CUDA_VISIBLE_DEVICES= to score on the CPU without the driver"
        ) from error
    if listed.returncode != 0:
        return []
    by_uuid = {uuid: number for number, uuid in _LISTED.findall(listed.stdout)}
    return list(by_uuid.values()) if chosen is None else _chosen_devices(chosen, by_uuid, listed.stdout)


def _chosen_devices(chosen: str, by_uuid: dict[str, str], listing: str) -> list[str]:
    found: list[str] = []
    for name in map(str.strip, chosen.split(",")):
        if name in by_uuid.values() or (name.startswith("MIG-") and f"UUID: {name})" in listing):
            device = name
        else:
            like = [number for uuid, number in by_uuid.items() if name and uuid.startswith(name)]
            if len(like) != 1:
                break
            (device,) = like
        # CUDA takes whole GPUs or MIG devices, not both.
        if found and device.startswith("MIG-") != found[0].startswith("MIG-"):
            break
        if device not in found:
            found.append(device)
    return found


@contextmanager
def cuda_visible_devices(devices: Sequence[str]) -> Iterator[None]:
    """In this context, ``CUDA_VISIBLE_DEVICES`` names ``devices``.

    Dask's monitor, which runs in this process with the scheduler, reads the variable. It understands fewer
    ways to write it than CUDA does.
    """
    before = os.environ.get(_CHOSEN)
    os.environ[_CHOSEN] = ",".join(devices)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CHOSEN]
        else:
            os.environ[_CHOSEN] = before


def gpu_groups(devices: Sequence[str], gpus_per_model: int) -> list[tuple[str, ...]]:
    """Groups of neighbouring devices, each of ``gpus_per_model``. Devices that are left over are in none.

    Machines number their GPUs so that neighbours have the fastest connection. ``UserMistake`` where there are
    too few for one model.
    """
    if len(devices) < gpus_per_model:
        raise UserMistake(
            f"ASSAY_GPUS_PER_MODEL is {gpus_per_model}, but this machine shows {len(devices)} GPUs: lower it"
        )
    starts = range(0, len(devices) - gpus_per_model + 1, gpus_per_model)
    return [tuple(devices[start : start + gpus_per_model]) for start in starts]


def gpu_cluster(
    groups: Sequence[Sequence[str]], security: Security, environment: Mapping[str, str] = MappingProxyType({})
) -> SpecCluster:
    """A cluster with one worker per group. A worker sees only its group's GPUs, and gets ``environment`` too.

    Groups of one GPU use dask-cuda, which also pins a worker to the cores beside its GPU. It cannot build
    larger groups.
    """
    if all(len(group) == 1 for group in groups):
        return _dask_cuda_cluster([device for (device,) in groups], security, environment)
    return _grouped_cluster(groups, security, environment)


def _dask_cuda_cluster(devices: Sequence[str], security: Security, more: Mapping[str, str]) -> SpecCluster:
    """dask-cuda's cluster with one worker per device. A worker sees only its own device."""
    from dask_cuda import LocalCUDACluster

    from assay.workers.nanny import LimitedNanny

    environment = {**gpu_worker_environment(len(devices)), **more}

    class Cluster(LocalCUDACluster):  # type: ignore[misc]  # dask-cuda has no types
        """A cluster whose workers get our environment. In Dask's settings the shell's would override it.

        By default dask-cuda shows a worker every device, its own first, for programs that exchange data.
        """

        is_made = False
        failure: Exception | None = None
        """Why workers did not start while the cluster was made."""

        def new_worker_spec(self) -> dict[Any, Any]:
            workers: dict[Any, Any] = super().new_worker_spec()
            for worker in workers.values():
                own = worker["options"]["env"][_CHOSEN].partition(",")[0]
                worker["options"]["env"] = {**environment, _CHOSEN: own}
                if "preload" in worker["options"]:
                    worker["options"]["preload"] = [*worker["options"]["preload"], PRELOAD]
            return workers

        async def _correct_state_internal(self) -> None:
            """Start workers. dask-cuda calls this twice, and never sees what the first call raises."""
            try:
                await super()._correct_state_internal()
            except Exception as error:
                if self.is_made:
                    raise
                self.failure = error

    cluster = Cluster(
        CUDA_VISIBLE_DEVICES=list(devices),
        n_workers=len(devices),
        threads_per_worker=GPU_WORKER_THREADS,
        memory_limit=NO_MEMORY_LIMIT,
        device_memory_limit=None,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=security,
        silence_logs=logging.CRITICAL,
        worker_class=LimitedNanny,
    )
    cluster.is_made = True
    if cluster.failure is not None:
        try:
            cluster.close()
        finally:
            raise cluster.failure
    return cluster


def _grouped_cluster(
    groups: Sequence[Sequence[str]], security: Security, more: Mapping[str, str]
) -> SpecCluster:
    from distributed import Scheduler, SpecCluster

    from assay.workers.nanny import LimitedNanny

    common = {"host": "127.0.0.1", "security": security, "protocol": "tls"}
    workers = {
        number: {
            "cls": LimitedNanny,
            "options": {
                **common,
                "nthreads": GPU_WORKER_THREADS,
                "memory_limit": NO_MEMORY_LIMIT,
                "dashboard_address": None,
                "silence_logs": logging.CRITICAL,
                "env": {**gpu_worker_environment(len(groups)), **more, _CHOSEN: ",".join(group)},
            },
        }
        for number, group in enumerate(groups)
    }
    scheduler = {"cls": Scheduler, "options": {**common, "dashboard_address": "127.0.0.1:0"}}
    return SpecCluster(workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL)


def gpu_worker_environment(workers: int) -> dict[str, str]:
    """The environment of a worker with a GPU. Its share of the cores tokenizes."""
    cores = max(1, usable_cores() // max(1, workers))
    return {
        **WORKER_ENVIRONMENT,
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": str(cores),
        # Number devices as nvidia-smi does, also in a machine with GPUs of several kinds.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Batches have hundreds of shapes. Memory segments that can grow do not fragment.
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        EXPECTS_CUDA: "1",
    }
