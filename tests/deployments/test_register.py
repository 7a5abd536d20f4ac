"""What a worker is started with, and what it starts."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import yaml

from deployments.register import CRASHED_RUNS, PREFECT_FILE, ROOT, for_a_worker


def test_a_run_is_the_engine_in_the_python_of_its_worker_wherever_that_is() -> None:
    template = json.loads((ROOT / "deployments/work_pool.json").read_bytes())
    python, *arguments = shlex.split(template["job_configuration"]["command"])
    assert arguments == ["-m", "flows.server.engine"]
    found = shutil.which(python, path=for_a_worker({"PATH": "/usr/bin:/bin"})["PATH"])
    assert found is not None
    assert Path(found).parent == Path(sys.executable).parent


def test_a_worker_looks_for_runs_every_second_unless_its_operator_says_otherwise() -> None:
    assert for_a_worker({})["PREFECT_WORKER_QUERY_SECONDS"] == "1"
    assert for_a_worker({"PREFECT_WORKER_QUERY_SECONDS": "9"})["PREFECT_WORKER_QUERY_SECONDS"] == "9"


def test_runs_of_every_deployment_are_looked_for_where_their_process_is_gone() -> None:
    of_flows, of_a_tag = yaml.safe_load(CRASHED_RUNS.read_bytes())["trigger"]["match_related"]
    deployed = yaml.safe_load(PREFECT_FILE.read_bytes())["deployments"]
    names = {one["entrypoint"].rpartition(":")[2] for one in deployed}
    assert set(of_flows["prefect.resource.name"]) == names
    kind, _, tag = of_a_tag["prefect.resource.id"].rpartition(".")
    assert kind == "prefect.tag"
    assert all(tag in one["tags"] for one in deployed)
