"""The Dask cluster of a run: on this machine's cores, on its GPUs, or behind a scheduler's address."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from assay.core.errors import ClusterFault, UserMistake
from assay.core.progress import SILENT, Progress
from assay.core.text import counted
from assay.storage.scratch import own_folder, torch_environment
from assay.workers.environment import EXPECTS_CUDA, NO_MEMORY_LIMIT, WORKER_ENVIRONMENT, usable_cores
from assay.workers.gpus import (
    cuda_visible_devices,
    gpu_cluster,
    gpu_groups,
    packages_are_here,
    visible_devices,
)
from assay.workers.main_program import leave_main_program_out
from assay.workers.same_code import check_workers, unfit_workers
from assay.workers.startup import started
from assay.workers.steady_clock import PRELOAD, temporary_certificates, use_steady_clock

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

_SETTINGS = {
    # How many deaths of workers a job may cause before it is suspected of killing them.
    "distributed.scheduler.allowed-failures": 1,
    # A worker that is silent for this long (stopped, swapping, unplugged) is given up.
    "distributed.scheduler.worker-ttl": "60s",
    # By default, a worker of a cluster started here that is still away 15 s after its death is given up for
    # ever, though its nanny is about to start it again.
    "distributed.deploy.lost-worker-timeout": "365 days",
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.admin.tick.limit": "60s",
    # By default Dask looks at each event loop 50 times a second, at each thread's stack 100 times, and at
    # memory 10 times. Jobs take seconds, so that is wasted work.
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.comm.timeouts.connect": "30s",
    # A shard that carries its records is larger than Dask expects of a task.
    "distributed.admin.large-graph-warning-threshold": "1GB",
    "distributed.nanny.environ": WORKER_ENVIRONMENT,
}

_ARRIVAL_SECONDS = 60

#: How long a scheduler that runs elsewhere may take to answer.
_ANSWER_SECONDS = 5

#: How many of a scheduler's workers are asked whether they have a GPU: all should be of one kind.
_SAMPLED_WORKERS = 4

#: The memory of a worker's process besides its model: Python, torch, a batch (0.6 GB were measured).
_PROCESS_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which workers a run has."""

    workers: int | None = None
    """Processes on this machine; None: one per GPU, or one per CPU core where there is no GPU."""
    scheduler_address: str | None = None
    """A running Dask scheduler. The options below do not change its workers."""
    gpus_per_model: int = 1
    """How many GPUs one worker sees and spreads its model over."""
    model_bytes: int = 0
    """What the model takes in the memory of each worker that has no GPU."""
    on_cores: bool = False
    """Whether the workers of this machine are on its CPU cores, though it has GPUs."""
    show_dashboard: Callable[[str], object] | None = None
    """Called with the address of Dask's dashboard, if there is one."""


def check_options(options: ClusterOptions) -> None:
    """Raise ``UserMistake`` for options that cannot work. Starts nothing."""
    if options.scheduler_address:
        _check_address(options.scheduler_address)
    elif options.gpus_per_model > 1 and packages_are_here() and (devices := visible_devices()):
        gpu_groups(devices, options.gpus_per_model)


@contextmanager
def connected(options: ClusterOptions, progress: Progress = SILENT) -> Iterator[Client]:
    """Yield a client whose workers have connected; at the end stop what was started here.

    Raises ``ClusterFault`` if no worker connects within a minute, or if every worker of a scheduler has other
    code than this run; ``UserMistake`` for an invalid address.
    """
    import dask
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    use_steady_clock()
    with dask.config.set(_SETTINGS):
        if options.scheduler_address:
            _check_address(options.scheduler_address)
            try:
                _shake_hands(options.scheduler_address)
                client = Client(options.scheduler_address, set_as_default=False, timeout=_ANSWER_SECONDS)
            except (OSError, ImportError) as error:
                raise ClusterFault(_why_no_scheduler(options.scheduler_address, error)) from error
            with client:
                _await_workers(client, 1)
                if line := check_workers(client):
                    progress.say(line)
                _show_dashboard(client, options)
                yield client
            return
        with _started_here(options, progress) as cluster, Client(cluster, set_as_default=False) as client:
            _await_workers(client, len(cluster.workers))
            _show_dashboard(client, options)
            yield client


def on_gpus(options: ClusterOptions) -> bool:
    """Whether the workers compute on GPUs; asks a scheduler's workers. Raises what ``connected`` raises."""
    if not options.scheduler_address:
        return bool(visible_devices()) and packages_are_here()
    with connected(dataclasses.replace(options, show_dashboard=None)) as client:
        unfit = unfit_workers(client)
        there = client.scheduler_info(n_workers=-1 if unfit else _SAMPLED_WORKERS)["workers"]
        some = sorted(address for address in there if address not in unfit)[:_SAMPLED_WORKERS]
        return any(client.run(_has_gpu, workers=some, on_error="ignore").values())


def scores_on_gpus(options: ClusterOptions) -> bool:
    """Whether workers that are started here for these options are on GPUs."""
    return not (options.scheduler_address or options.on_cores) and bool(visible_devices())


def _has_gpu() -> bool:
    """Whether the worker that runs this was started for a GPU, or sees one."""
    return bool(os.environ.get(EXPECTS_CUDA)) or bool(visible_devices())


@contextmanager
def _started_here(options: ClusterOptions, progress: Progress) -> Iterator[SpecCluster]:
    """Yield a cluster on this machine: on its GPUs where there are any, else on its cores."""
    import dask
    from distributed import LocalCluster

    from assay.workers.nanny import LimitedNanny

    leave_main_program_out()
    devices = [] if options.on_cores else visible_devices()
    if devices and not packages_are_here():
        progress.say(
            f"{len(devices)} GPUs are here, but the packages for them are missing: scoring on the CPU. "
            "Install them with pip install -e '.[gpu]'"
        )
        devices = []
    # Certificates for this run alone: every user of the machine can reach loopback, and Dask runs any code
    # that it is sent.
    security = temporary_certificates()
    if devices:
        groups = gpu_groups(devices, options.gpus_per_model)[: options.workers]
        with (
            own_folder() as folder,
            dask.config.set(_worker_settings(folder)),
            cuda_visible_devices(devices),
            started(
                lambda: gpu_cluster(groups, security, torch_environment(folder)), progress=progress
            ) as cluster,
        ):
            yield cluster
        return
    count = worker_count(options, progress)

    def cpu_cluster(folder: Path) -> SpecCluster:
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=NO_MEMORY_LIMIT,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            # Hide GPUs: several processes would fight for the first one.
            env={**WORKER_ENVIRONMENT, **torch_environment(folder), "CUDA_VISIBLE_DEVICES": ""},
            security=security,
            silence_logs=logging.CRITICAL,
            worker_class=LimitedNanny,
        )

    with own_folder() as folder, dask.config.set(_worker_settings(folder)), ExitStack() as stack:
        # A broken driver of a GPU must not stop work on the CPU.
        with dask.config.set({"distributed.diagnostics.nvml": False}):
            cluster = stack.enter_context(started(lambda: cpu_cluster(folder), progress=progress))
        yield cluster


def _worker_settings(folder: Path) -> dict[str, object]:
    """Dask's settings for workers that are started here. Their files go into the folder."""
    import dask

    loaded = dask.config.get("distributed.worker.preload", [])
    return {
        "temporary-directory": str(folder),
        "distributed.worker.preload": [*([loaded] if isinstance(loaded, str) else loaded), PRELOAD],
    }


def worker_count(options: ClusterOptions, progress: Progress = SILENT) -> int:
    """How many workers start on this machine's cores: one each, or fewer where memory holds fewer models."""
    from distributed.system import MEMORY_LIMIT

    if options.workers is not None:
        return options.workers
    cores, model_bytes = usable_cores(), options.model_bytes
    free = min(psutil.virtual_memory().available, MEMORY_LIMIT)
    fit = max(1, free // (model_bytes + _PROCESS_BYTES))
    if fit < cores:
        progress.say(
            f"{counted(fit, 'workers')} on {cores} cores: {free / 1e9:.1f} GB of memory are free, and each "
            f"takes {model_bytes / 1e9:.1f} GB for the model (--workers N if you know better)"
        )
    return min(cores, fit)


def _show_dashboard(client: Client, options: ClusterOptions) -> None:
    if options.show_dashboard is not None and client.dashboard_link:
        options.show_dashboard(client.dashboard_link)


def _check_address(address: str) -> None:
    """Raise ``UserMistake`` for a scheduler's address that Dask cannot connect to with these settings."""
    from distributed.comm.addressing import parse_address
    from distributed.comm.registry import get_backend
    from distributed.security import Security

    try:
        scheme, _ = parse_address(address, strict=True)
        get_backend(scheme)
        arguments = Security().get_connection_args("client")
        if scheme == "tls" and arguments.get("ssl_context") is None:
            raise ValueError("no certificates are named")
        if scheme == "tcp" and arguments.get("require_encryption"):
            raise ValueError("Dask's own settings require encryption")
    except (ValueError, OSError) as error:
        what = f"the certificates cannot be read: {error}" if isinstance(error, OSError) else str(error)
        raise UserMistake(
            f"ASSAY_SCHEDULER_ADDRESS is {address}, which Dask cannot connect to: "
            f"{' '.join(what.split())}. Write tcp://host:8786, or tls://host:8786 with certificates in "
            "Dask's own settings (distributed.comm.tls)"
        ) from error


def _shake_hands(address: str) -> None:
    """Raise OSError where no scheduler answers at the address.

    Dask's client waits for ever where something takes the connection and stays silent: a stopped scheduler,
    or another program.
    """
    from distributed import Security
    from distributed.comm.core import connect

    async def shake_hands() -> None:
        arguments = Security().get_connection_args("client")
        comm = await connect(address, timeout=_ANSWER_SECONDS, **arguments)
        comm.abort()

    # In a thread of its own: this thread may run an event loop, as a notebook's does.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, asyncio.wait_for(shake_hands(), 2 * _ANSWER_SECONDS)).result()


def _why_no_scheduler(address: str, error: BaseException) -> str:
    """The message for a scheduler that cannot be reached."""
    if isinstance(error, ImportError):
        return f"the Dask scheduler at {address} runs other versions: {' '.join(str(error).split())}"
    on_this_machine = "or leave ASSAY_SCHEDULER_ADDRESS empty to score on this machine"
    if not address.startswith("tls://"):
        return (
            f"no Dask scheduler answers at {address}: start one with `dask scheduler`, use tls:// if it has "
            f"certificates, {on_this_machine}"
        )
    while error.__cause__ is not None:
        error = error.__cause__
    return (
        f"TLS with the Dask scheduler at {address} failed "
        f"({' '.join(str(error).split()) or type(error).__name__}): check that it runs and that both "
        f"certificates have one CA (distributed.comm.tls in Dask's own settings), {on_this_machine}"
    )


def _await_workers(client: Client, count: int) -> None:
    try:
        client.wait_for_workers(count, timeout=_ARRIVAL_SECONDS)
    except TimeoutError as error:
        raise ClusterFault(
            f"{counted(count, 'Dask workers')} did not connect within {_ARRIVAL_SECONDS} s: see their logs"
        ) from error
