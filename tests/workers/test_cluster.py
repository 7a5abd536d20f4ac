"""How many workers there are by default, the message for those that do not start, and a model's size."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
import tiny
import tiny_families as families
import transformers
from patience import PATIENCE_SECONDS
from running_dask import until
from running_process import workers_of
from stages import Heard
from without_gpus import KINDS, options_for

from assay.core.errors import ClusterFault
from assay.rewards.options import ModelOptions
from assay.rewards.weights import weights_bytes
from assay.workers import cluster, nanny
from assay.workers.cluster import ClusterOptions, connected
from assay.workers.startup import started


@pytest.mark.parametrize(
    ("free", "model", "workers", "line"),
    [
        (64e9, 0, 8, None),
        (64e9, 7e9, 8, None),
        (
            64e9,
            15e9,
            4,
            "4 workers on 8 cores: 64.0 GB of memory are free, and each takes 15.0 GB for the model",
        ),
        (20e9, 15e9, 1, "1 worker on 8 cores: 20.0 GB"),
        (8e9, 15e9, 1, "1 worker on 8 cores: 8.0 GB"),
    ],
)
def test_there_are_no_more_workers_than_models_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, free: float, model: float, workers: int, line: str | None
) -> None:
    said: list[str] = []
    monkeypatch.setattr(cluster, "usable_cores", lambda: 8)
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 1 << 50)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=int(free)))
    assert cluster.worker_count(ClusterOptions(model_bytes=int(model)), Heard(said.append)) == workers
    assert len(said) == (line is not None)
    if line is not None:
        assert said[0].startswith(line)


@pytest.mark.slow
def test_a_number_of_workers_that_is_asked_for_is_not_questioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "visible_devices", list)
    said: list[str] = []
    with connected(ClusterOptions(workers=2, model_bytes=1 << 50), Heard(said.append)) as client:
        assert client.scheduler_info(n_workers=0)["n_workers"] == 2
    assert said == []


DIES_ONCE = """
import os, pathlib, signal
flag = pathlib.Path({flag!r})
if not flag.exists():
    flag.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
HANGS = "import time; time.sleep(300)"
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
LEAVES = "import os; os._exit(3)"
LACKS = "import a_package_that_nobody_has"
RAISES = """
import distributed
async def start(self): raise OSError("the driver is broken")
distributed.Worker.start_unsafe = start
"""


def preloaded(folder: Path, code: str) -> dict[str, list[str]]:
    """Settings by which every worker runs that code while it starts."""
    (folder / "preload.py").write_text(code)
    return {"distributed.worker.preload": [str(folder / "preload.py")]}


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_if_a_worker_dies_while_it_starts_all_are_started_once_more(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = options_for(kind, monkeypatch)
    said: list[str] = []
    settings = preloaded(tmp_path, DIES_ONCE.format(flag=str(tmp_path / "died")))
    with dask.config.set(settings), connected(options, Heard(said.append)) as client:
        assert client.scheduler_info(n_workers=0)["n_workers"] == 2
        assert len(workers_of()) == 2, "workers of the first attempt are left"
    assert said == [
        "a worker's process was killed by signal 9 while it started; starting the workers once more"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            DIES,
            "a worker's process was killed by signal 9 while it started, 2 times; most likely memory ran out",
        ),
        (LEAVES, "a worker's process exited with status 3 while it started, 2 times"),
        (LACKS, "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        (RAISES, "OSError: the driver is broken"),
        (HANGS, "a worker did not start in time: the machine is too busy, or the process hangs"),
    ],
    ids=["killed", "left", "lacks a package", "raises", "hangs"],
)
def test_workers_that_cannot_start_are_one_line_that_says_why(
    code: str,
    why: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    options = dataclasses.replace(options_for(kind, monkeypatch), workers=1)
    if code is HANGS:
        monkeypatch.setattr(nanny, "START_SECONDS", 1)
    with (
        dask.config.set(preloaded(tmp_path, code)),
        pytest.raises(ClusterFault, match=f"^the workers could not be started: {re.escape(why)}"),
        connected(options),
    ):
        pass
    assert workers_of() == []
    assert "Traceback" not in "".join(capfd.readouterr())


HANGS_ONCE = """
import pathlib, time
flag = pathlib.Path({flag!r})
if flag.exists():
    flag.unlink()
    time.sleep(300)
"""


@pytest.mark.faults
def test_a_replaced_worker_that_hangs_while_it_starts_is_replaced_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "visible_devices", list)
    flag = tmp_path / "hangs"
    settings = preloaded(tmp_path, HANGS_ONCE.format(flag=str(flag)))
    with dask.config.set(settings), connected(ClusterOptions(workers=1)) as client:
        flag.touch()
        monkeypatch.setattr(nanny, "START_SECONDS", 10)
        (worker,) = workers_of()
        worker.kill()
        until(lambda: not flag.exists(), "a worker that replaces the first")
        (hanging,) = workers_of()
        monkeypatch.setattr(nanny, "START_SECONDS", 300)
        assert client.submit(os.getpid).result(PATIENCE_SECONDS) not in (worker.pid, hanging.pid)


@pytest.mark.faults
def test_a_cluster_ends_at_once_though_a_worker_hangs_while_it_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "visible_devices", list)
    flag = tmp_path / "hangs"
    settings = preloaded(tmp_path, HANGS_ONCE.format(flag=str(flag)))
    with dask.config.set(settings), connected(ClusterOptions(workers=1)):
        flag.touch()
        workers_of()[0].kill()
        until(lambda: not flag.exists(), "a worker that replaces the first")
        began = time.monotonic()
    assert time.monotonic() - began < 60
    assert workers_of() == []


DIES_LATE = """
import os, pathlib, time
dies, slow = pathlib.Path({dies!r}), pathlib.Path({slow!r})
if dies.exists():
    dies.unlink()
    time.sleep(6)
    os._exit(3)
if slow.exists():
    slow.unlink()
    time.sleep(6)
"""


@pytest.mark.faults
def test_the_limit_of_one_start_does_not_end_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "visible_devices", list)
    dies, slow = tmp_path / "dies", tmp_path / "slow"
    logged: list[str] = []
    settings = preloaded(tmp_path, DIES_LATE.format(dies=str(dies), slow=str(slow)))
    with dask.config.set(settings), connected(ClusterOptions(workers=1)) as client:
        monkeypatch.setattr(nanny, "_log", SimpleNamespace(error=logged.append))
        monkeypatch.setattr(nanny, "START_SECONDS", 10)
        dies.touch()
        slow.touch()
        workers_of()[0].kill()
        until(lambda: not dies.exists(), "a worker that replaces the first")
        monkeypatch.setattr(nanny, "START_SECONDS", 300)
        client.submit(os.getpid).result(PATIENCE_SECONDS)
    assert not slow.exists()
    assert logged == []


@pytest.mark.slow
def test_a_process_that_cannot_be_made_is_reported_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(cluster, "visible_devices", list)
    monkeypatch.setattr("multiprocessing.popen_spawn_posix.Popen._launch", refuse)
    with (
        pytest.raises(ClusterFault, match=r"Resource temporarily unavailable .*--workers N starts fewer"),
        connected(ClusterOptions(workers=1)),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "/tmp/x: No space left on device (make"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files (raise `ulimit -n`"),
        (OSError(errno.EADDRINUSE, "Address already in use"), "Address already in use"),
        (TimeoutError("Nanny start timed out after 300s."), "a worker did not start in time"),
        (ValueError("Could not start Nanny"), "ValueError: Could not start Nanny"),
    ],
)
def test_why_workers_did_not_start_is_reported_in_a_line(error: Exception, line: str) -> None:
    def start() -> object:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("Nanny failed to start.") from cause

    said: list[str] = []
    with pytest.raises(ClusterFault, match=f"^the workers could not be started: {re.escape(line)}"):
        started(start, progress=Heard(said.append))
    assert said == []


@pytest.mark.slow
def test_a_scheduler_that_takes_a_connection_and_says_nothing_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(ClusterFault, match=f"no Dask scheduler answers at {address}"),
            connected(ClusterOptions(scheduler_address=address)),
        ):
            pass


def test_a_models_size_is_known_in_the_precision_that_it_is_computed_in(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    values = sum(parameter.numel() for parameter in loaded.parameters())
    assert weights_bytes(tiny.spec(folder)) == 4 * values
    assert weights_bytes(tiny.spec(folder, ModelOptions(dtype="bfloat16"))) == 2 * values


def test_weights_of_several_files_are_added_up_and_what_is_none_counts_nothing(tmp_path: Path) -> None:
    spec = families.gated(tmp_path / "model", "chatml").spec
    before = weights_bytes(spec)
    content = (Path(spec.folder) / "model.safetensors").read_bytes()
    (Path(spec.folder) / "second.safetensors").write_bytes(content)
    (Path(spec.folder) / "broken.safetensors").write_bytes(b"\xff" * 20)
    (Path(spec.folder) / "empty.safetensors").write_bytes(b"")
    assert weights_bytes(spec) == 2 * before > 0
