"""One operated Assay for all tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psutil
import pytest
import yaml
from operation import PART, Lost, Operation, eventually, operation
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.automations import AutomationCore
from prefect.states import Pending

from deployments import register


@pytest.fixture(scope="session")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operation]:
    with operation(tmp_path_factory.mktemp("operated")) as running:
        running.chats("nightly.jsonl", 3)
        # Made first and looked at last: meanwhile a minute goes by.
        running.deploy_fake(
            "scheduled", every_minute={"input": ["data/nightly.jsonl"], "output": "results/nightly"}
        )
        running.deploy_fake("fake")
        yield running


@pytest.fixture(scope="session")
def never_begun(operated: Operation) -> FlowRun:
    """A run that is *Pending* without a process, as when a restart of the server loses an answer.

    It is made early, because its worker starts it again only minutes later: other tests run meanwhile.
    """
    operated.chats("never-begun.jsonl", 2)
    fake = operated.client.read_deployment_by_name("curate/fake")
    options = {"input": ["data/never-begun.jsonl"], "output": "results/never-begun"}
    return operated.client.create_flow_run_from_deployment(
        fake.id, parameters={"options": options}, state=Pending()
    )


@pytest.fixture(autouse=True)
def _nothing_held_for_ever(request: pytest.FixtureRequest) -> Iterator[None]:
    """So that a test that fails does not leave workers waiting, and with them every test after it."""
    yield
    if "operated" in request.fixturenames:
        operated: Operation = request.getfixturevalue("operated")
        for name in operated.held:
            operated.let_go(name)


@pytest.fixture(scope="session")
def lost(operated: Operation) -> Lost:
    """Early, so that the time until somebody knows goes by during other tests."""
    pool = "elsewhere"
    template = json.loads((register.ROOT / "deployments/work_pool.json").read_bytes())
    operated.client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
    operated.deploy_fake("lost", pool=pool)
    keys = operated.chats("lost.jsonl", PART, ["lost"])
    run = operated.trigger("curate/lost", input=["data/lost.jsonl"], output="results/lost", shard_tokens=30)
    # The automation as it is delivered, for this run alone and with no more patience than a test has.
    automation = yaml.safe_load(register.CRASHED_RUNS.read_bytes())
    automation |= {"name": "lost"}
    automation["trigger"] |= {
        "match": {"prefect.resource.id": f"prefect.flow-run.{run.id}"},
        "match_related": {},
        "within": 35,
    }
    operated.client.create_automation(AutomationCore.model_validate(automation))
    with operated.worker(pool) as worker:
        eventually(lambda: len(operated.calls(keys)) == PART and operated.is_computing(), "first scores")
        processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        assert operated.process(run.id) in processes
        for process in processes:
            process.kill()
    return Lost(run, pool, keys)
