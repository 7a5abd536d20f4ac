"""Runs of a deployment work one at a time, and no server has to remember whose turn it is."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import filelock
import pytest
import yaml
from places import ROOT
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.states import Suspended

from assay.core.progress import Silent
from assay.storage.home import Home
from flows.server.queue_place import place_in_queue


class Notes(Silent):
    """Keeps the lines that a person would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@contextmanager
def held(home: Home, deployment: UUID, by: str = "curate to results/first") -> Iterator[None]:
    """As another process holds it that works for this deployment."""
    folder = home.prefect / "places"
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / f"{deployment}.lock"):
        (folder / f"{deployment}.holder").write_text(f"{by}\n")
        yield


def until_said(notes: Notes, what: str) -> None:
    deadline = time.monotonic() + 60
    while what not in " ".join(notes.lines):
        assert time.monotonic() < deadline, notes.lines
        time.sleep(0.05)


@pytest.fixture
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def test_no_deployment_has_a_limit_that_makes_leases() -> None:
    offered = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]
    assert offered
    assert not [one["name"] for one in offered if "concurrency_limit" in one]


@pytest.mark.slow
def test_a_run_waits_until_the_place_is_free_and_a_suspended_one_leaves_the_queue(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    home, worked = Home(tmp_path), []
    notes = Notes()

    @flow(name="queued", persist_result=False)
    def queued() -> None:
        with place_in_queue(home, notes):
            worked.append(1)

    deployment = client.create_deployment(client.create_flow(queued), name="one")

    def begun(run: FlowRun) -> threading.Thread:
        def carried_out() -> None:
            try:
                run_flow(queued, flow_run=client.read_flow_run(run.id))
            except Pause:
                return

        # The context names the tests' server to Prefect.
        run_there = contextvars.copy_context().run
        thread = threading.Thread(target=run_there, args=(carried_out,), daemon=True)
        thread.start()
        return thread

    def state(run: FlowRun) -> Any:
        return client.read_flow_run(run.id).state

    with held(home, deployment):
        suspended = client.create_flow_run_from_deployment(deployment)
        first = begun(suspended)
        until_said(notes, "waiting for another run to end: curate to results/first")
        later = datetime.now(UTC) + timedelta(seconds=300)
        client.set_flow_run_state(suspended.id, Suspended(pause_expiration_time=later))
        first.join(30)
        assert not first.is_alive()
        assert state(suspended).name == "Suspended"
        assert not worked
        notes.lines.clear()
        waiting = client.create_flow_run_from_deployment(deployment)
        second = begun(waiting)
        until_said(notes, "waiting for another run")
        assert not worked
    second.join(30)
    assert worked == [1]
    assert state(waiting).name == "Completed"
    assert state(waiting).state_details.deployment_concurrency_lease_id is None
    # Free again, it is taken without a word.
    notes.lines.clear()
    begun(client.create_flow_run_from_deployment(deployment)).join(30)
    assert worked == [1, 1]
    assert not notes.lines
    client.delete_deployment(deployment)
