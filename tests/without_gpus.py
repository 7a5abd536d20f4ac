"""Workers of all kinds on a machine without GPUs, and a stand-in for dask-cuda, which needs a driver."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from assay.workers import cluster
from assay.workers.cluster import ClusterOptions

#: The workers that a run starts, each kind with two workers.
KINDS = {
    "on cores": ([], ClusterOptions(workers=2)),
    "on GPUs": (["0", "1"], ClusterOptions()),
    "on groups of GPUs": (["0", "1", "2", "3"], ClusterOptions(gpus_per_model=2)),
}


def options_for(kind: str, monkeypatch: pytest.MonkeyPatch) -> ClusterOptions:
    """What starts two workers of that kind. Their GPUs are numbers only."""
    devices, options = KINDS[kind]
    show_devices(devices, monkeypatch)
    return options


def show_devices(devices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run believe that these GPUs, and dask-cuda, are here."""
    monkeypatch.setitem(sys.modules, "dask_cuda", stand_in_for_dask_cuda())
    monkeypatch.setattr(cluster, "packages_are_here", lambda: True)
    monkeypatch.setattr(cluster, "visible_devices", lambda: devices)


def stand_in_for_dask_cuda() -> ModuleType:
    """What is used of dask-cuda 26.10, without a driver: a worker a device, each seeing its own first."""
    from distributed import LocalCluster

    class LocalCUDACluster(LocalCluster):
        def __init__(
            self,
            *,
            CUDA_VISIBLE_DEVICES: list[str],  # noqa: N803
            device_memory_limit: None,
            **options: Any,
        ) -> None:
            count = options.pop("n_workers")
            assert count == len(CUDA_VISIBLE_DEVICES)
            self.devices = list(CUDA_VISIBLE_DEVICES)
            super().__init__(n_workers=0, processes=True, **options)
            self.scale(count)
            self.sync(self._correct_state)

        def new_worker_spec(self) -> dict[Any, Any]:
            name = min(set(self.devices) - set(self.worker_spec))
            first = self.devices.index(name)
            (spec,) = super().new_worker_spec().values()
            order = self.devices[first:] + self.devices[:first]
            options = {**spec["options"], "env": {"CUDA_VISIBLE_DEVICES": ",".join(order)}}
            return {name: {**spec, "options": options}}

    module = ModuleType("dask_cuda")
    vars(module)["LocalCUDACluster"] = LocalCUDACluster
    return module
