"""Give a Prefect server Assay's work pool, deployments and automation; again, to bring them up to date.

PREFECT_API_URL=http://127.0.0.1:4200/api PREFECT_API_AUTH_STRING=user:password python -m deployments.register
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from assay.core.errors import AssayError, ServerFault, UserMistake

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ROOT = Path(__file__).resolve().parent.parent
POOL = "assay"
CRASHED_RUNS = ROOT / "deployments" / "crashed_runs.yaml"

_DEPLOY_SECONDS = 180.0


def main() -> int:
    """The exit code."""
    try:
        api_url = os.environ.get("PREFECT_API_URL")
        if not api_url:
            raise UserMistake("PREFECT_API_URL: name the server, such as http://127.0.0.1:4200/api")
        prepare_pool(api_url)
        deploy(dict(os.environ))
        watch_for_crashes(api_url)
    except AssayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


@contextmanager
def client_of(api_url: str) -> Iterator[SyncPrefectClient]:
    """Yield a client of that server, whatever address this process has configured; with its login."""
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
    from prefect.client.schemas.actions import WorkPoolCreate

    template = json.loads((ROOT / "deployments" / "work_pool.json").read_bytes())
    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template)
    with client_of(api_url) as client:
        client.create_work_pool(pool, overwrite=True)


def deploy(environment: dict[str, str]) -> None:
    """Give the server every deployment of ``prefect.yaml``; ServerFault with what Prefect said."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"),
            *("--prefect-file", "deployments/prefect.yaml"),
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


if __name__ == "__main__":
    sys.exit(main())
