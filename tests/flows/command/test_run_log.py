"""What a deployment's run says stands in its log, which its page shows."""

from __future__ import annotations

import io
import logging

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.logging.handlers import APILogHandler

from flows.command.console import Console, current


def test_with_a_log_every_line_goes_there_and_none_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("flows.command.console.time.monotonic", lambda: clock[0])
    said = io.StringIO()
    kept: list[str] = []
    console = Console(errors=said, results=io.StringIO(), log=kept.append)
    with console.stage("score") as stage:
        console.begin("score", 300, "turns")
        for _ in range(12):
            clock[0] += 11.0
            console.advance(10)
        console.say("another run is scoring with this model; waiting \x1b[31m")
        stage.note = "300 turns"
    assert kept == [
        "score: 300 turns",
        # At most one a minute: a server keeps them, and a run may take days.
        "score: 60 of 300 turns, 0.9 turns/s, 4 min left",
        "score: 120 of 300 turns, 0.9 turns/s, 3 min left",
        "another run is scoring with this model; waiting \ufffd[31m",
        "score    300 turns  132.0 s",
    ]
    assert not said.getvalue()


@pytest.mark.slow
def test_a_deployments_run_speaks_in_its_log_and_a_command_does_not(
    prefect_api: str, caplog: pytest.LogCaptureFixture
) -> None:
    @flow(name="speaking", persist_result=False)
    def speaking() -> None:
        console = current()
        console.say("another run is scoring with this model; waiting")
        console.say("warning: an input is cut short")
        console.say("error: no record could be used")
        with console.stage("filter") as stage:
            stage.note = "3 records"

    with get_client(sync_client=True) as client, caplog.at_level(logging.INFO, "prefect.flow_runs"):
        deployment = client.create_deployment(client.create_flow(speaking), name="one")
        logging.getLogger("prefect.flow_runs").addHandler(caplog.handler)
        try:
            run_flow(speaking, flow_run=client.create_flow_run_from_deployment(deployment))
            logged = [(record.levelname, record.getMessage()) for record in caplog.records]
            assert ("INFO", "another run is scoring with this model; waiting") in logged
            assert ("WARNING", "warning: an input is cut short") in logged
            assert ("ERROR", "error: no record could be used") in logged
            assert any(message.startswith("filter   3 records  0.") for _, message in logged)
            caplog.clear()
            speaking()
            assert "another run" not in caplog.text
        finally:
            logging.getLogger("prefect.flow_runs").removeHandler(caplog.handler)
            client.delete_deployment(deployment)
    handlers = logging.getLogger("prefect.flow_runs").handlers
    assert any(isinstance(one, APILogHandler) for one in handlers), "it would not reach the pages"
