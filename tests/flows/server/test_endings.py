"""A deployment's run ends in a state that Prefect's pages list, and says what kind of end it is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prefect import State, flow
from prefect.client.orchestration import get_client
from prefect.states import Completed, Crashed, Failed

from assay.core.errors import ModelFault, OutputRefused, Resumable, UserMistake
from flows.server.announcing import tag_run
from flows.server.endings import EndKind, completed, exit_code, failed, kind_in, kind_of

#: The names by which the pages of a deployment filter its runs (prefect-ui-library, ``prefectStateNames``).
LISTED = frozenset({"Completed", "Failed"})


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (Failed(message=EndKind.MISTAKE.said("no such folder")), 2),
        (Failed(message=EndKind.STOPPED.said("the run was set to Paused")), 75),
        (Failed(message=EndKind.UNVERIFIED.said("1 of 3 checks failed")), 1),
        (Completed(message=EndKind.INCOMPLETE.said("3 of 4 records kept")), 1),
        (Completed(message="4 of 4 records kept"), 0),
        (Completed(), 0),
        (Failed(message="the model cannot be loaded"), 1),
        (Crashed(message="Nothing was heard of its process"), 1),
        # Not at the beginning, and not a kind of ours.
        (Failed(message="scoring: Mistake: no"), 1),
        (Completed(message="Mistakes: none"), 0),
    ],
)
def test_a_command_that_followed_a_run_exits_by_the_kind_in_its_message(state: State[Any], code: int) -> None:
    assert exit_code(state) == code


@pytest.mark.parametrize("kind", EndKind)
def test_a_kind_is_read_from_the_message_that_it_wrote(kind: EndKind) -> None:
    assert kind_in(kind.said("anything: at all")) is kind


def test_an_error_says_which_kind_of_end_it_is() -> None:
    assert kind_of(UserMistake("x")) is kind_of(OutputRefused("x")) is EndKind.MISTAKE
    assert kind_of(Resumable("x")) is EndKind.STOPPED
    assert kind_of(ModelFault("x")) is None


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.engine"])
def test_the_log_of_a_run_that_failed_has_no_traceback(name: str) -> None:
    assert failed("the model cannot be loaded").message == "the model cannot be loaded"
    log = logging.getLogger(name)
    for message, is_kept in (("Engine execution exited with unexpected exception", False), ("else", True)):
        record = log.makeRecord(name, logging.ERROR, "", 0, message, (), None)
        assert bool(log.filter(record)) == is_kept


@pytest.mark.slow
def test_a_run_of_any_end_is_listed_and_tagged_and_a_retry_loses_the_tag(prefect_api: str) -> None:
    @flow
    def ending(kind: EndKind) -> State[Any]:
        return (completed if kind is EndKind.INCOMPLETE else failed)("this and that", kind)

    with get_client(sync_client=True) as client:
        for kind in EndKind:
            state = ending(kind, return_state=True)
            run_id = state.state_details.flow_run_id
            assert run_id is not None
            run = client.read_flow_run(run_id)
            assert run.state_name in LISTED
            assert run.state is not None
            assert run.state.message == f"{kind.value}: this and that"
            assert run.tags == [f"ended:{kind.value.lower()}"]
            tag_run(run_id, models=["starter"], inputs=[])
            assert client.read_flow_run(run_id).tags == ["model:starter"]
