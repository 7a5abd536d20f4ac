"""Dask workers on this machine's GPUs: one a GPU, or one a group of GPUs that share a model."""

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
from assay.rewards.protocol import EXPECTS_CUDA
from assay.score.workers.environment import NO_MEMORY_LIMIT, WORKER_ENVIRONMENT, usable_cores
from assay.score.workers.steady_clock import PRELOAD

if TYPE_CHECKING:
    from distributed import Security, SpecCluster

#: While one shard is on the GPU, the next is rendered and tokenized.
GPU_WORKER_THREADS = 2

#: A driver that hangs is one that answers nothing.
_LISTING_SECONDS = 60

_CHOSEN = "CUDA_VISIBLE_DEVICES"

#: ``GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-…)``; lines of MIG devices are indented.
_LISTED = re.compile(r"^GPU (\d+): .*\(UUID: (GPU-[^)]+)\)", re.MULTILINE)


def packages_are_here() -> bool:
    """Whether what the extra ``gpu`` installs is."""
    return importlib.util.find_spec("dask_cuda") is not None


def visible_devices() -> list[str]:
    """NVIDIA GPUs of this machine that may be used, by ``nvidia-smi``'s numbers (or MIG devices' names).

    ``CUDA_VISIBLE_DEVICES`` chooses among them, by number, by UUID or by the beginning of one; as CUDA does,
    what follows a name that is none is not looked at. Raises ``ClusterFault`` where the driver hangs.
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
            f"`nvidia-smi --list-gpus` has not answered within {_LISTING_SECONDS} s: the driver hangs. "
            "CUDA_VISIBLE_DEVICES= scores on the CPU without asking it"
        ) from error
    if listed.returncode != 0:
        return []
    by_uuid = {uuid: number for number, uuid in _LISTED.findall(listed.stdout)}
    return list(by_uuid.values()) if chosen is None else _chosen_of(chosen, by_uuid, listed.stdout)


def _chosen_of(chosen: str, by_uuid: dict[str, str], listing: str) -> list[str]:
    found: list[str] = []
    for name in map(str.strip, chosen.split(",")):
        if name in by_uuid.values() or (name.startswith("MIG-") and f"UUID: {name})" in listing):
            device = name
        else:
            like = [number for uuid, number in by_uuid.items() if name and uuid.startswith(name)]
            if len(like) != 1:
                break
            (device,) = like
        # CUDA takes whole GPUs or parts of them, not both.
        if found and device.startswith("MIG-") != found[0].startswith("MIG-"):
            break
        if device not in found:
            found.append(device)
    return found


@contextmanager
def named_as_the_driver_does(devices: Sequence[str]) -> Iterator[None]:
    """Within, this process's ``CUDA_VISIBLE_DEVICES`` is ``devices``.

    Dask's monitor of the scheduler, which lives here, looks its devices up by it, and knows fewer ways to
    write it than CUDA does.
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
    """Neighbouring devices in groups of that size; what is left over is in none.

    Neighbours, for a machine numbers its GPUs so that those are best connected. ``UserMistake`` where
    there are too few for one model.
    """
    if len(devices) < gpus_per_model:
        raise UserMistake(
            f"ASSAY_GPUS_PER_MODEL is {gpus_per_model}, and this machine shows {len(devices)} GPUs"
        )
    starts = range(0, len(devices) - gpus_per_model + 1, gpus_per_model)
    return [tuple(devices[start : start + gpus_per_model]) for start in starts]


def one_worker_a_group(
    groups: Sequence[Sequence[str]], security: Security, environment: Mapping[str, str] = MappingProxyType({})
) -> SpecCluster:
    """A cluster of one worker a group, each seeing its group's GPUs and no other, with this environment too.

    dask-cuda's, which also pins a worker to the cores beside its GPU, where groups are of one; it has no
    larger ones.
    """
    if all(len(group) == 1 for group in groups):
        return _of_dask_cuda([device for (device,) in groups], security, environment)
    return _of_groups(groups, security, environment)


def _of_dask_cuda(devices: Sequence[str], security: Security, more: Mapping[str, str]) -> SpecCluster:
    """dask-cuda's cluster of a worker a device, each seeing its own device and no other."""
    from dask_cuda import LocalCUDACluster

    environment = {**gpu_worker_environment(len(devices)), **more}

    class Cluster(LocalCUDACluster):  # type: ignore[misc]  # dask-cuda has no types
        """One whose workers have our environment: what Dask's settings name yields to the shell's.

        By itself dask-cuda lets a worker see every device, its own first: for those who exchange data.
        """

        def new_worker_spec(self) -> dict[Any, Any]:
            workers: dict[Any, Any] = super().new_worker_spec()
            for worker in workers.values():
                own = worker["options"]["env"][_CHOSEN].partition(",")[0]
                worker["options"]["env"] = {**environment, _CHOSEN: own}
                if "preload" in worker["options"]:
                    worker["options"]["preload"] = [*worker["options"]["preload"], PRELOAD]
            return workers

    return Cluster(
        CUDA_VISIBLE_DEVICES=list(devices),
        n_workers=len(devices),
        threads_per_worker=GPU_WORKER_THREADS,
        memory_limit=NO_MEMORY_LIMIT,
        device_memory_limit=None,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=security,
        silence_logs=logging.CRITICAL,
    )


def _of_groups(groups: Sequence[Sequence[str]], security: Security, more: Mapping[str, str]) -> SpecCluster:
    from distributed import Nanny, Scheduler, SpecCluster

    common = {"host": "127.0.0.1", "security": security, "protocol": "tls"}
    workers = {
        number: {
            "cls": Nanny,
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
    """What a worker that has a GPU is started with: its share of the cores is there to tokenize."""
    cores = max(1, usable_cores() // max(1, workers))
    return {
        **WORKER_ENVIRONMENT,
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": str(cores),
        # Devices are numbered as nvidia-smi does, also where GPUs of several kinds are in one machine.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Batches come in hundreds of shapes: segments that can grow do not fall to pieces over them.
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        EXPECTS_CUDA: "1",
    }
