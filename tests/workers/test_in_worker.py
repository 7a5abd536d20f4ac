"""A worker's faults say which machine they are of, where that matters."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from job_doers import Noted

from assay.core.errors import ClusterFault, InputFault, StoreFault
from assay.core.jobs import AtWork
from assay.workers.in_worker import AskedBy, do_or_leave


@pytest.mark.parametrize(
    ("error", "host", "said"),
    [
        (InputFault("a.jsonl: gone"), "far", "worker on near: a.jsonl: gone"),
        (InputFault("a.jsonl: gone"), "near", "a.jsonl: gone"),
        (StoreFault("S3 is away"), "near", "worker on near: S3 is away"),
        (ClusterFault("lost"), "far", "worker on near: lost"),
    ],
)
def test_a_fault_names_its_machine_where_that_is_another(
    error: Exception, host: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "near")
    assert _raised(error, host, monkeypatch) == f"{type(error).__name__}: {said}"


def test_a_fault_of_the_disk_names_its_machine_where_that_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "near")
    error = PermissionError(13, "Permission denied", "/home/pieces")
    said = "PermissionError: [Errno 13] Permission denied (worker on near): '/home/pieces'"
    assert _raised(error, "far", monkeypatch) == said
    assert (
        _raised(error, "near", monkeypatch) == "PermissionError: [Errno 13] Permission denied: '/home/pieces'"
    )


def _raised(error: Exception, host: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a run on that host hears where a job raises the error."""

    class Worker:
        nanny = None

        def get_current_task(self) -> str:
            return "key"

    class Failing(Noted):
        def done_by(self, at: AtWork) -> int:
            raise error

    monkeypatch.setattr("distributed.get_worker", Worker)
    with pytest.raises(type(error)) as caught:
        do_or_leave(Failing(0, Path()), AskedBy("run", host))
    return f"{type(caught.value).__name__}: {caught.value}"
