"""Where Dask runs: processes on this machine, its GPUs, or a scheduler's address."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from assay.core.errors import ClusterFault, UserMistake
from assay.core.progress import SILENT, Progress
from assay.core.text import counted
from assay.rewards.protocol import EXPECTS_CUDA
from assay.score.workers.environment import NO_MEMORY_LIMIT, WORKER_ENVIRONMENT, usable_cores
from assay.score.workers.gpus import (
    gpu_groups,
    named_as_the_driver_does,
    one_worker_a_group,
    packages_are_here,
    visible_devices,
)
from assay.score.workers.startup import started
from assay.score.workers.steady_clock import PRELOAD, certificates_of_a_run, keep_from_jumping
from assay.storage.scratch import own_folder, torch_environment

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

_SETTINGS = {
    # Deaths of a worker that a shard survives before it is suspected of killing them.
    "distributed.scheduler.allowed-failures": 1,
    # A worker that says nothing for so long (stopped, swapping, unplugged) is given up.
    "distributed.scheduler.worker-ttl": "60s",
    # A worker of a cluster that is started here and is away at 15 s after its last death would be given up
    # for ever, though its nanny is about to bring it back.
    "distributed.deploy.lost-worker-timeout": "365 days",
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.admin.tick.limit": "60s",
    # A look at every event loop fifty times a second, at every thread's stack a hundred times, and at memory
    # ten times: for shards of seconds that is work for nobody.
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.comm.timeouts.connect": "30s",
    # A shard that carries its records is larger than a task is thought to be.
    "distributed.admin.large-graph-warning-threshold": "1GB",
    "distributed.nanny.environ": WORKER_ENVIRONMENT,
}

_ARRIVAL_SECONDS = 60

#: A worker's process that is not up after so long hangs, however many start at once.
_START_SECONDS = 300

#: How long a scheduler that runs elsewhere is given to answer.
_ANSWER_SECONDS = 5

#: So many workers of a scheduler are asked what they compute on: they are meant to be all of one kind.
_ASKED_WORKERS = 4

#: A worker's process beside its model: Python, torch, and a batch at work (0.6 GB were seen).
_PROCESS_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which workers score."""

    workers: int | None = None
    """Processes on this machine; None: one a CPU core, or one a GPU where there are any."""
    scheduler_address: str | None = None
    """A running Dask scheduler; then nothing else is looked at: its workers see what they were given."""
    gpus_per_model: int = 1
    """GPUs that one worker sees, and spreads its model over."""
    model_bytes: int = 0
    """What each of them holds of the model, in the machine's memory where there is no GPU."""
    show_dashboard: Callable[[str], object] | None = None
    """Is told the address of Dask's dashboard, where there is one."""


def check_options(options: ClusterOptions) -> None:
    """Raise ``UserMistake`` for what can be told of them before any work, without starting anything."""
    if options.scheduler_address:
        _check_address(options.scheduler_address)
    elif options.gpus_per_model > 1 and packages_are_here() and (devices := visible_devices()):
        gpu_groups(devices, options.gpus_per_model)


@contextmanager
def connected(options: ClusterOptions, progress: Progress = SILENT) -> Iterator[Client]:
    """Yield a client whose workers have arrived; what was started here is stopped at the end.

    Raises ``ClusterFault`` where no worker arrives within a minute, ``UserMistake`` for an address that is
    none.
    """
    import dask
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    keep_from_jumping()
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
                _show_dashboard(client, options)
                yield client
            return
        with _started_here(options, progress) as cluster, Client(cluster, set_as_default=False) as client:
            _await_workers(client, len(cluster.workers))
            _show_dashboard(client, options)
            yield client


def on_gpus(options: ClusterOptions) -> bool:
    """Whether those workers compute on GPUs. A scheduler's are asked. Raises what ``connected`` does."""
    if not options.scheduler_address:
        return bool(visible_devices()) and packages_are_here()
    with connected(dataclasses.replace(options, show_dashboard=None)) as client:
        some = sorted(client.scheduler_info(n_workers=_ASKED_WORKERS)["workers"])
        return any(client.run(_has_gpu, workers=some, on_error="ignore").values())


def _has_gpu() -> bool:
    """Whether the worker that runs this was started for a GPU, or sees one."""
    return bool(os.environ.get(EXPECTS_CUDA)) or bool(visible_devices())


@contextmanager
def _started_here(options: ClusterOptions, progress: Progress) -> Iterator[SpecCluster]:
    """Yield a cluster on this machine: on its GPUs where there are any, else on its cores."""
    import dask
    from distributed import LocalCluster

    devices = visible_devices()
    if devices and not packages_are_here():
        progress.say(
            f"{len(devices)} GPUs are here, but not the packages to use them: scoring on the CPU. "
            "Install them with pip install -e '.[gpu]'"
        )
        devices = []
    # Certificates that exist for this run alone: loopback is open to every user of the machine, and
    # Dask's protocol runs what it is sent.
    security = certificates_of_a_run()
    if devices:
        groups = gpu_groups(devices, options.gpus_per_model)[: options.workers]
        with (
            own_folder() as folder,
            dask.config.set(_of_workers(folder)),
            named_as_the_driver_does(devices),
            started(
                lambda: one_worker_a_group(groups, security, torch_environment(folder)), progress=progress
            ) as cluster,
        ):
            yield cluster
        return
    count = options.workers or _as_many_as_fit(options.model_bytes, progress)

    def one_worker_a_core(folder: Path) -> SpecCluster:
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=NO_MEMORY_LIMIT,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            # Without GPUs of their own: several processes would fight for the first one.
            env={**WORKER_ENVIRONMENT, **torch_environment(folder), "CUDA_VISIBLE_DEVICES": ""},
            security=security,
            silence_logs=logging.CRITICAL,
            death_timeout=_START_SECONDS,
        )

    with (
        own_folder() as folder,
        dask.config.set(_of_workers(folder)),
        # A driver that is broken is no reason not to score on the CPU.
        dask.config.set({"distributed.diagnostics.nvml": False}),
        started(lambda: one_worker_a_core(folder), progress=progress) as cluster,
    ):
        yield cluster


def _of_workers(folder: Path) -> dict[str, object]:
    """Dask's settings for workers that are started here: their files go into the folder."""
    import dask

    loaded = dask.config.get("distributed.worker.preload", [])
    return {
        "temporary-directory": str(folder),
        "distributed.worker.preload": [*([loaded] if isinstance(loaded, str) else loaded), PRELOAD],
    }


def _as_many_as_fit(model_bytes: int, progress: Progress) -> int:
    """How many workers this machine's cores get: one each, or fewer where memory holds no more models."""
    from distributed.system import MEMORY_LIMIT

    cores = usable_cores()
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
    """Raise ``UserMistake`` for a scheduler's address that Dask could not even try."""
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
            f"{' '.join(what.split())}. It is to look like tcp://host:8786, or like tls://host:8786 "
            "where Dask's own settings (distributed.comm.tls) name the certificates"
        ) from error


def _shake_hands(address: str) -> None:
    """Raise OSError where no scheduler answers there.

    A client of Dask's waits for ever on one that takes a connection and says nothing: a scheduler that is
    stopped, or another program.
    """
    from distributed import Security
    from distributed.comm.core import connect

    async def shake_hands() -> None:
        arguments = Security().get_connection_args("client")
        comm = await connect(address, timeout=_ANSWER_SECONDS, **arguments)
        comm.abort()

    # In a thread of its own: this one may have a loop, as a notebook's has.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, asyncio.wait_for(shake_hands(), 2 * _ANSWER_SECONDS)).result()


def _why_no_scheduler(address: str, error: BaseException) -> str:
    """What to tell of a scheduler that could not be reached."""
    if isinstance(error, ImportError):
        return f"the Dask scheduler at {address} has other versions: {' '.join(str(error).split())}"
    on_this_machine = "or leave ASSAY_SCHEDULER_ADDRESS empty to score on this machine"
    if not address.startswith("tls://"):
        return (
            f"no Dask scheduler answers at {address}: start one with `dask scheduler`, use tls:// where it "
            f"has certificates, {on_this_machine}"
        )
    while error.__cause__ is not None:
        error = error.__cause__
    return (
        f"no Dask scheduler at {address} takes these certificates, or has ones to be believed "
        f"({' '.join(str(error).split()) or type(error).__name__}): see that it runs and that both sides' "
        "certificates are of one authority (distributed.comm.tls in Dask's own settings), "
        f"{on_this_machine}"
    )


def _await_workers(client: Client, count: int) -> None:
    try:
        client.wait_for_workers(count, timeout=_ARRIVAL_SECONDS)
    except TimeoutError as error:
        raise ClusterFault(
            f"{count} Dask workers were expected and did not arrive within {_ARRIVAL_SECONDS} s"
        ) from error
