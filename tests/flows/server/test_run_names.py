"""A run is named after what it does, unless a person has named it; its output names its day."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from coolname import generate_slug
from prefect import State, flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Scheduled
from pydantic import BaseModel

from flows.server.run_names import day_of_the_run, is_made_up, named_after


@pytest.mark.parametrize("name", ["first-try", "March chats", "results", "my-own-run", "2026-03-01", "Bob"])
def test_a_persons_name_is_kept(name: str) -> None:
    assert not is_made_up(name)


def test_a_name_that_prefect_makes_up_is_known() -> None:
    assert all(is_made_up(generate_slug(2)) for _ in range(300))
    assert is_made_up("omicron57-canis-majoris-nebula")
    assert is_made_up("Incredible-Grouse")


class Chosen(BaseModel):
    output: str


@pytest.mark.slow
def test_a_run_is_renamed_by_its_options_and_its_day_or_not_at_all(prefect_api: str) -> None:
    days = []

    @flow(name="renamed", flow_run_name=named_after(lambda one: f"to {one.output}"), persist_result=False)
    def renamed(options: Chosen) -> None:
        days.append(day_of_the_run())

    planned: State[None] = Scheduled(scheduled_time=datetime(2026, 3, 1, 23, 30, tzinfo=UTC))
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(renamed), name="one")
        for given, called in ((None, "to results/2026-03-01"), ("March, second try", "March, second try")):
            run = client.create_flow_run_from_deployment(
                deployment, name=given, state=planned, parameters={"options": {"output": "results/{day}"}}
            )
            run_flow(renamed, flow_run=run, parameters={"options": {"output": "results/{day}"}})
            assert client.read_flow_run(run.id).name == called
        client.delete_deployment(deployment)
    assert [day.isoformat() for day in days] == ["2026-03-01"] * 2
