"""Give a Prefect server Assay's work pool, deployments and automation; again, to bring them up to date.

The forms offer the roots and models of this process's settings (ASSAY_DATA_ROOTS …), which should be those of
the workers.

PREFECT_API_URL=http://127.0.0.1:4200/api PREFECT_API_AUTH_STRING=user:password python -m deployments.register
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.offered import fitting, offered
from assay.config.settings import Settings
from assay.core.errors import AssayError, ServerFault, UserMistake
from flows.server.connection import prefects_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, StateType

ROOT = Path(__file__).resolve().parent.parent
POOL = "assay"
#: What a worker is started with, unless the operator says otherwise. Prefect's workers look for runs every
#: 10 s, for which somebody who mistypes a path would wait.
_WORKER_SETTINGS = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"
CRASHED_RUNS = ROOT / "deployments" / "crashed_runs.yaml"

_DEPLOY_SECONDS = 180.0


def main() -> int:
    """The exit code."""
    try:
        api_url = os.environ.get("PREFECT_API_URL")
        if not api_url:
            raise UserMistake("PREFECT_API_URL: name the server, such as http://127.0.0.1:4200/api")
        prepare_pool(api_url)
        deploy(api_url, dict(os.environ), Settings.read())
        watch_for_crashes(api_url)
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def for_a_worker(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker, whose runs are processes of this Python.

    The pool's command names ``python``: by its whole path, it would be that of the machine that registers.
    """
    found = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", os.defpath)))
    return {**_WORKER_SETTINGS, **environment, "PATH": found}


@contextmanager
def client_of(api_url: str) -> Iterator[SyncPrefectClient]:
    """Yield a client of that server, whatever address this process has configured; with its login.

    UserMistake where Prefect cannot read its settings.
    """
    prefects_settings()
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks.server_answers import drop_results

    drop_results()
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        yield client


def prepare_pool(api_url: str) -> None:
    """Make the work pool, or make it what it is to be.

    The pool's template has no variables: who starts a run in Prefect's pages chooses neither the command
    nor the environment of its process.
    """
    prefects_settings()
    from prefect.client.schemas.actions import WorkPoolCreate

    template = json.loads((ROOT / "deployments" / "work_pool.json").read_bytes())
    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template)
    with client_of(api_url) as client:
        client.create_work_pool(pool, overwrite=True)


def deploy(api_url: str, environment: dict[str, str], settings: Settings) -> None:
    """Give the server every deployment of ``prefect.yaml``, with what these settings offer.

    ServerFault with what Prefect said.
    """
    import yaml

    asked = fitting(yaml.safe_load(PREFECT_FILE.read_bytes()), settings)
    with tempfile.TemporaryDirectory(prefix="assay-deploy-") as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(asked, sort_keys=False))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"),
                *("--prefect-file", str(file)),
            ],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEPLOY_SECONDS,
            check=False,
        )
    if done.returncode:
        raise ServerFault(f"deploying failed: {(done.stderr or done.stdout).strip()}")
    with client_of(api_url) as client:
        for one in asked["deployments"]:
            _offer(client, one, settings)


def _offer(client: SyncPrefectClient, asked: dict[str, Any], settings: Settings) -> None:
    """Have the form of a deployment offer what there is, and take away the limit of an earlier version.

    That limit made leases, which a server forgets when it restarts; runs now wait for each other themselves.
    """
    from prefect.client.schemas.actions import DeploymentUpdate

    flow = asked["entrypoint"].rpartition(":")[2]
    there = client.read_deployment_by_name(f"{flow}/{asked['name']}")
    schema = offered(dict(there.parameter_openapi_schema or {}), settings)
    client.update_deployment(
        there.id, DeploymentUpdate(parameter_openapi_schema=schema, concurrency_limit=None)
    )


def watch_for_crashes(api_url: str) -> None:
    """Make the automation that marks runs whose process is gone, or make it what it is to be."""
    import yaml
    from prefect.events.schemas.automations import AutomationCore

    wanted = AutomationCore.model_validate(yaml.safe_load(CRASHED_RUNS.read_bytes()))
    with client_of(api_url) as client:
        there = client.read_automations_by_name(wanted.name)
        if there:
            client.update_automation(there[0].id, wanted)
        else:
            client.create_automation(wanted)


def last_runs(
    client: SyncPrefectClient,
    kinds: Sequence[StateType],
    *,
    pool: str | None = None,
    queues: Sequence[str] = (),
) -> list[FlowRun]:
    """The last runs of deployments in such states, of the pool and the queues where given.

    No more than the server lists at a time: 200, if it is not told otherwise.
    """
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
        WorkQueueFilter,
        WorkQueueFilterName,
    )
    from prefect.client.schemas.sorting import FlowRunSort

    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(is_null_=False),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(kinds))),
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])) if pool is not None else None,
        work_queue_filter=WorkQueueFilter(name=WorkQueueFilterName(any_=list(queues))) if queues else None,
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )


def end_lost_runs(api_url: str, *, queue: str | None = None) -> list[str]:
    """The names of the runs of deployments that no process has any more, now that they have ended too.

    Call it where the server, or the ``queue``, has no worker yet. Otherwise they would seem to run for good:
    nothing was there to see that they died.
    """
    prefects_settings()
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Cancelled, Crashed

    under_way = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
    with client_of(api_url) as client:
        pool, queues = (None, []) if queue is None else (POOL, [queue])
        lost = last_runs(client, under_way, pool=pool, queues=queues)
        for run in lost:
            cancelling = run.state is not None and run.state.is_cancelling()
            message = "Its worker ended while it was under way."
            state: State[None] = Cancelled(message=message) if cancelling else Crashed(message=message)
            client.set_flow_run_state(run.id, state, force=True)
    return [run.name for run in lost]


if __name__ == "__main__":
    sys.exit(main())
