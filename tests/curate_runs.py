"""Whole runs of ``assay curate`` in this process, with a model of no weights."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakes
import pytest
import ran
from patience import PATIENCE_SECONDS
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)

from assay.core.digests import digest_of_bytes
from assay.score import ways
from assay.workers.cluster import ClusterOptions
from flows.command import console
from flows.command.curate import COMMAND
from flows.command.launch import launch
from flows.curate import prepare


@contextmanager
def in_this_process(options: ClusterOptions, *rest: object, **more: object) -> Iterator[Any]:
    from distributed import Client

    with Client(
        processes=False,
        n_workers=1,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        set_as_default=False,
    ) as client:
        yield client


def line(question: str, answer: str) -> str:
    return json.dumps(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    )


#: What two runs with equal results need not have alike.
OF_THE_RUN = ("manifest.json", "report.html")


@dataclass
class Ran(ran.Ran):
    """What a run in this process came to."""

    watched: console.Console

    def files(self) -> dict[str, bytes]:
        """The results but for the manifest and the page, which are of the run."""
        return {path.name: path.read_bytes() for path in self.output.iterdir() if path.name not in OF_THE_RUN}

    def task_states(self) -> dict[str, str]:
        """The state of each stage's task run as the server shows it, once all are final."""
        assert self.watched.flow_run_id is not None
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[self.watched.flow_run_id]))
        deadline = time.monotonic() + PATIENCE_SECONDS
        with get_client(sync_client=True) as client:
            while True:
                runs = client.read_task_runs(flow_run_filter=ours)
                # The report is a run's last task, and arrives last.
                arrived = any(run.name == "report" for run in runs)
                final = all(run.state and run.state.is_final() for run in runs)
                if (arrived and final) or time.monotonic() > deadline:
                    return {run.name: run.state_name or "" for run in runs}
                time.sleep(0.1)

    def artifacts(self) -> dict[str, Any]:
        """What the run left in Prefect's pages, by key."""
        assert self.watched.flow_run_id is not None
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[self.watched.flow_run_id]))
        with get_client(sync_client=True) as client:
            return {found.key or "": found for found in client.read_artifacts(artifact_filter=chosen)}


def figures_of(dry_run: Ran) -> dict[str, str]:
    """The table that a dry run prints."""
    rows = [row.split("│") for row in dry_run.out.splitlines() if "│" in row]
    return {name.strip(): figure.strip() for _, name, figure, _ in rows}


def curating(
    prefect_api: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Ran]:
    """The command on the tests' Prefect server, with results in ``tmp_path``."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    # All tests share that server, and a busy machine makes it slow.
    monkeypatch.setenv("ASSAY_SERVER_ANSWER_SECONDS", "60")
    monkeypatch.setattr(ways, "workers_for", in_this_process)
    # Workers of this process keep models by fingerprint: every test has its own.
    model = fakes.spec(tmp_path / "model", digest_of_bytes(os.fsencode(tmp_path)))
    monkeypatch.setattr(prepare, "find_model", lambda name, *known, **options: model)

    def run(*arguments: object, output: str = "out") -> Ran:
        watched = console.Console()
        monkeypatch.setattr("flows.command.launch.Console", lambda: watched)
        where = tmp_path / output
        code = launch(COMMAND, [*map(str, arguments), "--output", str(where)])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err, where, watched)

    return run
