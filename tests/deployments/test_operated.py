"""Started by a form, a clock or a program, a run does its work; cancelled and retried, it goes on.

All tests share one server. What a run needs is given by the operator's settings, as in docs/operation.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

import psutil
import pytest
from operation import PART, POSTGRES, Lost, Mailbox, Operation, eventually, until
from patience import RENEWAL_SECONDS
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.events.schemas.automations import EventTrigger
from prefect.states import Cancelling, Crashed, Paused, Scheduled, Suspended

from assay.storage.sealed import DIGEST
from flows.server.endings import EndKind
from tasks.suspension import SUSPENDED_EVENT


def _notified(message: str) -> bool:
    return message in "".join(Mailbox.bodies())


def _has_ended(process: psutil.Process) -> bool:
    return not process.is_running()


def _has_called(operated: Operation, keys: set[str], times: int) -> bool:
    return len(operated.calls(keys)) == times


def _is_final(operated: Operation, run: FlowRun) -> bool:
    state = operated.client.read_flow_run(run.id).state
    assert state is not None
    return state.is_final()


def _stages(operated: Operation, run: FlowRun) -> list[TaskRun]:
    found = operated.client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    assert {"ingest", "export"} <= {one.name for one in found}
    return found


def test_a_run_that_is_killed_with_its_worker_leaves_no_work_behind(
    operated: Operation, lost: Lost, never_begun: FlowRun
) -> None:
    until(lambda: not operated.is_computing(), 10, "idle Dask workers")
    assert not (operated.results / "lost").exists()
    # So far it seems to go on.
    assert operated.client.read_flow_run(lost.run.id).state_type == StateType.RUNNING


def test_a_run_triggered_by_the_api_leaves_its_export_and_shows_what_it_did(operated: Operation) -> None:
    operated.chats("some.jsonl", 4)
    old = operated.folder / "home/artifacts/old/a.parquet"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of last year")
    os.utime(old, (0, 0))
    run = operated.trigger("curate/curate", input=["data/some.jsonl"], output="results/some")
    ended = operated.ended(run.id)
    assert ended.state_type == StateType.COMPLETED, operated.log("worker")
    assert operated.manifest("some")["rows"]["kept"] == 4
    assert len((operated.results / "some/labeled.jsonl").read_text().splitlines()) == 4
    shown = operated.artifacts(run.id)
    names = ("dask", "scoring", "shards", "summary", "scores-helpfulness", "flow")
    kinds = {f"{name}-results-some" for name in names}
    assert kinds <= shown.keys()
    assert shown["scoring-results-some"].data == 100.0
    assert shown["scoring-results-some"].description.startswith("4 of 4 turns, ")
    assert shown["scores-helpfulness-results-some"].data.startswith("data:image/svg+xml;base64,")
    # What it said stands in its log, which its page shows.
    for stage in ("ingest", "convert", "score", "filter", "export"):
        eventually(partial(operated.has_logged, run.id, rf"{stage} .* \d+\.\d s"), stage)
    assert not old.exists()
    eventually(partial(operated.has_logged, run.id, "removed 1 file of earlier stages .* 30 days .*"), "room")
    assert ended.name == "curate to results/some"
    assert {"assay", "cpu", "model:starter", "data:some.jsonl"} <= set(ended.tags)
    assert ended.state is not None
    assert ended.state.message == "4 of 4 records kept"
    # What automations can wait for.
    eventually(lambda: operated.events("assay.output.results/some"), "the event of the end")
    (event,) = operated.events("assay.output.results/some")
    assert event["event"] == "assay.curate.completed"
    assert event["payload"]["rows"] == {"read": 4, "kept": 4, "dropped": 0, "quarantined": 0}
    assert f"prefect.flow-run.{run.id}" in {one["prefect.resource.id"] for one in event["related"]}
    # The two processes that the operator started have scored, and no other.
    scored_by = {
        int(row["worker"].partition(":")[2]) for row in json.loads(shown["shards-results-some"].data)
    }
    nannies = [psutil.Process(worker.pid) for worker in operated.dask_workers]
    assert scored_by <= {child.pid for nanny in nannies for child in nanny.children(recursive=True)}


def test_a_mistake_in_the_form_ends_the_run_with_a_sentence(operated: Operation) -> None:
    wrong: dict[str, dict[str, object]] = {
        "input '../outside': '..' is not followed here; begin with data/…": {"input": ["../outside"]},
        "a path here begins with results/…": {"output": "/tmp/elsewhere"},
        "takes a model by its name": {"model": "http://169.254.169.254/"},
    }
    asked: dict[str, object] = {"input": ["data"], "output": "results/wrong"}
    runs = {said: operated.trigger("curate/fake", **{**asked, **options}) for said, options in wrong.items()}
    for said, run in runs.items():
        ended = operated.ended(run.id)
        assert ended.state is not None
        assert (ended.state_type, ended.state.name) == (StateType.FAILED, "Failed")
        assert EndKind.MISTAKE.tag in ended.tags
        message = ended.state.message or ""
        assert message.startswith("Mistake: ")
        assert said in message
        assert "Error" not in message
        eventually(partial(_notified, message), "a notification")
    assert not (operated.results / "wrong").exists()


def test_the_command_line_triggers_a_deployment_and_exits_by_its_end(operated: Operation) -> None:
    operated.chats("typed.jsonl", 2)
    typed = ("--output", "results/typed", "--deployment")
    done = operated.command("--input", "data/typed.jsonl", *typed, "fake")
    assert done.returncode == 0, done.stderr
    assert f": {operated.api_url.removesuffix('/api')}/runs/flow-run/" in done.stderr
    assert "Completed: 2 of 2 records kept" in done.stderr
    assert operated.manifest("typed")["rows"]["kept"] == 2
    refused = operated.command("--input", "/etc/passwd", *typed, "curate/fake")
    assert refused.returncode == 2
    assert "a path here begins with data/…" in refused.stderr
    unknown = operated.command("--input", "data", *typed, "fakee")
    assert unknown.returncode == 2
    assert "has no deployment 'curate/fakee'; did you mean 'curate/fake'?" in unknown.stderr
    assert "Traceback" not in done.stderr + refused.stderr + unknown.stderr


def test_a_verification_shows_its_checks_and_says_which_failed(operated: Operation) -> None:
    run = operated.trigger("verify/verify", model="starter")
    named = "results/golden/starter.json"
    golden = operated.results / "golden/starter.json"
    recording = operated.trigger("verify/verify", model="starter", record=named)
    outside = operated.trigger("verify/verify", model="starter", record="results/../golden.json")
    recorded = operated.ended(recording.id).state
    assert recorded is not None
    assert (recorded.type, recorded.message) == (StateType.COMPLETED, f"recorded: 14 turns in {named}")

    ended = operated.ended(run.id)
    assert ended.state is not None
    assert (ended.name, ended.state.type) == ("verify starter", StateType.COMPLETED), ended.state.message
    assert {"assay", "cpu", "model:starter"} <= set(ended.tags)
    rows = json.loads(operated.artifacts(run.id)["checks-starter"].data)
    outcomes = {row["check"]: row["outcome"] for row in rows}
    assert outcomes["2 Dask workers"] == outcomes["padded on the left, with a mask"] == "pass"
    assert ended.state.message == f"{list(outcomes.values()).count('pass')} checks passed"

    refused = operated.ended(outside.id).state
    assert refused is not None
    assert (refused.type, refused.name) == (StateType.FAILED, "Failed")
    assert refused.message == (
        "Mistake: record 'results/../golden.json': '..' is not followed here; begin with results/…"
    )

    altered = json.loads(golden.read_bytes())
    altered["rows"][0]["scores"][0][0] += 0.5
    # Golden rows of an earlier version carry no digest; with one, they would be refused as altered.
    del altered[DIGEST]
    golden.write_text(json.dumps(altered))
    checked = operated.command("starter", "--check", named, "--deployment", "verify", flow="verify")
    assert checked.returncode == 1
    said = r"Unverified: 1 of \d checks failed: recorded scores: "
    (measured,) = re.findall(rf"{said}(\S+) at most over 14 turns", checked.stderr)
    assert 0.2 < float(measured) <= 0.5
    assert "allowed: 1e-05" in checked.stderr


def test_nights_release_what_is_new_with_its_splits_and_exports(operated: Operation) -> None:
    (operated.data / "days").mkdir()
    series = operated.results / "days"
    (nightly,) = operated.client.read_deployment_by_name("curate/curate").schedules
    asked: dict[str, Any] = {
        **nightly.parameters["options"],
        "input": ["data/days"],
        "output": "results/days",
    }
    assert asked["advanced"] == {"release": True}
    asked |= {"advanced": {"release": True, "split": ["val=0.3"]}}
    fake = operated.client.read_deployment_by_name("curate/fake")

    def night(day: int) -> str:
        """As the schedule starts it at three in the morning; what the run says at its end."""
        planned: State[Any] = Scheduled(scheduled_time=datetime(2026, 3, day, 3, tzinfo=UTC))
        run = operated.client.create_flow_run_from_deployment(
            fake.id, parameters={"options": asked}, state=planned
        )
        ended = operated.ended(run.id)
        assert ended.state is not None
        assert ended.state_type == StateType.COMPLETED, ended.state.message
        return str(ended.state.message)

    def sides(day: int) -> dict[str, str]:
        """On which side of the split each prompt of that release is; every export has the same ones."""
        release = series / f"2026-03-0{day}"
        found: dict[str, str] = {}
        for side in ("train", "val"):
            rows = [json.loads(line) for line in (release / f"messages-{side}.jsonl").open()]
            found |= {row["messages"][0]["content"]: side for row in rows}
            assert len((release / f"labeled-{side}.jsonl").read_text().splitlines()) == len(rows)
        kept = json.loads((release / "manifest.json").read_bytes())["rows"]["kept"]
        assert len(found) == kept > 0
        return found

    def files(day: int) -> list[str]:
        manifest = json.loads((series / f"2026-03-0{day}/manifest.json").read_bytes())
        return sorted(PurePath(one["path"]).name for one in manifest["inputs"])

    first = operated.chats("days/monday.jsonl", 12) | operated.chats("days/tuesday.jsonl", 12)
    night(1)
    assert files(1) == ["monday.jsonl", "tuesday.jsonl"]
    assert sorted(operated.calls(first)) == sorted(first)
    released = _contents(series / "2026-03-01")

    # A file that has grown is new as a whole, and only its new turns are scored; a lost one is not missed.
    (operated.data / "days/monday.jsonl").rename(operated.data / "monday.jsonl")
    grown = operated.chats("days/tuesday.jsonl", 24)
    night(2)
    assert files(2) == ["tuesday.jsonl"]
    assert sorted(operated.calls(grown)) == sorted(grown)
    before, after = sides(1), sides(2)
    assert set(after.values()) == {"train", "val"}
    again = before.keys() & after.keys()
    assert len(again) == sum(" of days/tuesday.jsonl" in prompt for prompt in before)
    assert {prompt: before[prompt] for prompt in again} == {prompt: after[prompt] for prompt in again}

    # One that came back is in a release already.
    (operated.data / "monday.jsonl").rename(operated.data / "days/monday.jsonl")
    operated.chats("days/wednesday.jsonl", 12)
    night(3)
    assert files(3) == ["wednesday.jsonl"]
    assert all(" of days/wednesday.jsonl" in prompt for prompt in sides(3))

    assert night(4) == "Nothing new: every input is in an earlier release in results/days"
    days = [path.name for path in sorted(series.iterdir()) if not path.name.startswith(".")]
    assert days == ["2026-03-01", "2026-03-02", "2026-03-03"]
    # What was released stays, also of the file that grew and of the one that vanished.
    assert _contents(series / "2026-03-01") == released


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def begun(operated: Operation, name: str, *held: str) -> tuple[FlowRun, set[str]]:
    """A run that has scored its first part and works at what is held, and its turns' keys."""
    keys = operated.chats(f"{name}.jsonl", PART, held)
    run = operated.trigger(
        "curate/fake", input=[f"data/{name}.jsonl"], output=f"results/{name}", shard_tokens=30
    )
    eventually(
        lambda: len(operated.calls(keys)) == PART and operated.is_computing(),
        "the first part",
    )
    return run, keys


def idle_within_10_seconds(operated: Operation, began: float) -> None:
    until(lambda: not operated.is_computing(), began + 10 - time.monotonic(), "idle Dask workers")


@pytest.mark.timed
def test_a_cancelled_run_stops_its_dask_work_and_a_retry_goes_on(operated: Operation) -> None:
    run, keys = begun(operated, "slow", "cancelled")
    operated.client.set_flow_run_state(run.id, Cancelling(), force=True)
    began = time.monotonic()
    assert operated.ended(run.id, 30).state_type == StateType.CANCELLED
    idle_within_10_seconds(operated, began)
    assert not (operated.results / "slow").exists()

    operated.let_go("cancelled")
    operated.client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)
    until(lambda: not _is_final(operated, run), 10, "a beginning of the retry")
    assert operated.ended(run.id).state_type == StateType.COMPLETED
    assert operated.manifest("slow")["rows"]["kept"] == 2 * PART
    assert sorted(operated.calls(keys)) == sorted(keys), "a turn was scored twice, or never"


@pytest.mark.timed
def test_a_paused_run_stops_its_dask_work_and_goes_on_when_it_is_resumed(operated: Operation) -> None:
    held = ("paused", "suspended", "taken_for_dead")
    run, keys = begun(operated, "paused", *held)
    # Prefect's pages ask for the second; a program may also ask for the first.
    later = datetime.now(UTC) + timedelta(seconds=300)
    orders: list[State[None]] = [
        Paused(pause_expiration_time=later),
        Suspended(pause_expiration_time=later),
    ]
    for parts, asked in enumerate(orders, start=1):
        process = operated.process(run.id)
        assert process.environ()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
        answer = operated.client.set_flow_run_state(run.id, asked)
        assert answer.status == SetStateStatus.ACCEPT
        began = time.monotonic()
        idle_within_10_seconds(operated, began)
        until(partial(_has_ended, process), began + 15 - time.monotonic(), "its end")
        state = operated.client.read_flow_run(run.id).state
        assert state is not None
        assert (state.name, state.state_details.pause_timeout) == ("Suspended", later)
        assert not (operated.results / "paused").exists()
        assert len(operated.calls(keys)) == parts * PART

        operated.let_go(held[parts - 1])
        operated.client.resume_flow_run(run.id)
        eventually(partial(_has_called, operated, keys, (parts + 1) * PART), "the next part")
    # Taken for dead, by a server that was away, it goes on.
    operated.client.set_flow_run_state(run.id, Crashed(), force=True)
    time.sleep(3.0)
    operated.let_go(held[2])
    eventually(
        lambda: operated.client.read_flow_run(run.id).state_type == StateType.COMPLETED,
        "its end",
    )
    assert operated.manifest("paused")["rows"]["kept"] == 4 * PART
    assert sorted(operated.calls(keys)) == sorted(keys), "a turn was scored twice, or never"
    # No task run seems to run for ever.
    ours = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    until(
        lambda: (
            sorted(
                one.state_name or ""
                for one in operated.client.read_task_runs(flow_run_filter=ours)
                if one.name == "score"
            )
            == ["Cancelled", "Cancelled", "Completed"]
        ),
        20,
        "an end of every task run",
    )


@pytest.mark.timed
def test_a_deleted_run_stops_its_dask_work_and_ends_its_process(operated: Operation) -> None:
    run, keys = begun(operated, "deleted", "never")
    process = operated.process(run.id)
    operated.client.delete_flow_run(run.id)
    began = time.monotonic()
    idle_within_10_seconds(operated, began)
    until(lambda: not process.is_running(), began + 20 - time.monotonic(), "its end")
    assert len(operated.calls(keys)) == PART
    assert not (operated.results / "deleted").exists()
    _, _, told = operated.log("worker").partition(str(run.id))
    assert "Finished in state Deleted" in told
    assert "Traceback" not in told


def test_sigterm_ends_the_command_that_follows_a_run_and_not_the_run(operated: Operation) -> None:
    operated.chats("followed.jsonl", 1, ["followed"])
    following = operated.started(
        *("--input", "data/followed.jsonl", "--output", "results/followed", "--deployment", "fake")
    )
    assert following.stderr is not None
    told = following.stderr.readline()
    run = UUID(told.rsplit("/", 1)[1].strip())
    following.send_signal(signal.SIGTERM)
    _, said = following.communicate(timeout=30)
    assert following.returncode == 143
    assert said.splitlines()[-1].startswith("stopped following; the run goes on")
    operated.let_go("followed")
    assert operated.ended(run).state_type == StateType.COMPLETED


def test_all_parts_listen_on_loopback_alone_while_a_run_is_scored(operated: Operation) -> None:
    operated.chats("heard.jsonl", 2, ["heard"])
    segments = operated.segments()
    run = operated.trigger("curate/fake", input=["data/heard.jsonl"], output="results/heard", shard_tokens=30)
    eventually(lambda: operated.segments() > segments, "a first segment")
    heard = {
        (process.pid, connection.laddr.ip)
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    operated.let_go("heard")
    assert operated.ended(run.id).state_type == StateType.COMPLETED
    # Prefect's server, Dask's scheduler, two nannies and their workers.
    assert len({process for process, _ in heard}) >= 6
    assert {address for _, address in heard} == {"127.0.0.1"}


@pytest.mark.timed
def test_of_two_runs_of_a_deployment_the_second_waits_for_its_turn_and_mistakes_do_not(
    operated: Operation,
) -> None:
    # A server may have the limit of an earlier version, which registering takes away.
    assert operated.client.read_deployment_by_name("curate/curate").global_concurrency_limit is None
    operated.deploy_fake("limited")
    operated.chats("twice.jsonl", 1, ["twice"])
    options: dict[str, Any] = {"input": ["data/twice.jsonl"], "output": "results/twice", "shard_tokens": 30}
    first = operated.trigger("curate/limited", **options)
    held = operated.results / ".twice.lock"
    eventually(lambda: held.exists() and held.read_text(), "a run that holds the output")
    second = operated.trigger("curate/limited", **options)
    # A run of another deployment does not wait, and meets the one that holds the output.
    refused = operated.ended(operated.trigger("curate/fake", **options).id).state
    assert refused is not None
    assert (refused.type, refused.name) == (StateType.FAILED, "Failed")
    assert (refused.message or "").startswith("Mistake: ")
    assert f"process {operated.process(first.id).pid} on {socket.gethostname()}" in (refused.message or "")

    waiting = "waiting for another run to end: curate to results/twice"
    eventually(
        lambda: waiting in "\n".join(operated.logged(second.id)),
        "a run that says what it waits for",
    )
    assert operated.client.read_flow_run(second.id).state_name == "Running"
    # Seen by whoever has made them, while the others work.
    mistakes: dict[str, dict[str, object]] = {
        "data/ holds: ": {"input": ["data/nothing-*.jsonl"]},
        "helpfullness": {"keep": ["helpfullness > 1"]},
        "takes a model by its name": {"model": "http://169.254.169.254/"},
    }
    for said, wrong in mistakes.items():
        mistaken = operated.trigger("curate/limited", **{**options, **wrong})
        ended = operated.ended(mistaken.id)
        assert ended.state_name == "Failed"
        assert ended.end_time is not None
        assert ended.start_time is not None
        assert (ended.end_time - ended.start_time).total_seconds() < 10
        shown = operated.artifacts(mistaken.id)["mistake"].data
        assert said in shown.replace("\\", "")
        assert str(operated.folder) not in f"{ended.state}{shown}"
        assert "Traceback" not in shown
        assert "Traceback" not in "".join(operated.logged(mistaken.id))
    operated.let_go("twice")
    ends = [operated.ended(run.id) for run in (first, second)]
    assert [run.state_type for run in ends] == [StateType.COMPLETED, StateType.COMPLETED]
    # A run has nothing left to do, and gives its place away, a moment before its state says so.
    of_first, of_second = (_stages(operated, run) for run in (first, second))
    assert max(one.end_time for one in of_first if one.end_time) <= min(
        one.start_time for one in of_second if one.start_time
    )
    assert operated.manifest("twice")["turns"]["scored"] == 0


def test_a_server_that_restarts_under_runs_ends_none_and_the_next_has_its_turn(operated: Operation) -> None:
    operated.chats("restarted.jsonl", PART, ["restarted"])
    as_registered = operated.client.read_deployment_by_name("curate/curate").global_concurrency_limit
    operated.deploy_fake("restarted", concurrency_limit=as_registered and as_registered.limit)
    options = {"input": ["data/restarted.jsonl"], "output": "results/restarted", "shard_tokens": 30}
    first = operated.trigger("curate/restarted", **options, release=True)
    eventually(
        lambda: list(operated.results.glob("restarted/.*.lock")),
        "a run that holds the output",
    )
    second = operated.trigger("curate/restarted", **options, release=True)
    eventually(lambda: "waiting" in "".join(operated.logged(second.id)), "a run that waits")
    time.sleep(RENEWAL_SECONDS / 4)
    operated.server.stop()
    operated.server.start()
    operated.server.until_it_answers()
    # A renewal of a lease that the server would have forgotten (see fake_curate.py).
    time.sleep(1.2 * RENEWAL_SECONDS)
    assert operated.client.read_flow_run(first.id).state_type == StateType.RUNNING
    operated.let_go("restarted")
    ends = [operated.ended(run.id) for run in (first, second)]
    assert [run.state_type for run in ends] == [StateType.COMPLETED] * 2
    (release,) = operated.results.glob("restarted/[!.]*")
    assert operated.manifest(f"restarted/{release.name}")["rows"]["kept"] == 2 * PART
    # It looked again for what is new, once it had its turn.
    assert ends[1].state is not None
    assert (ends[1].state.message or "").startswith("Nothing new: ")


def test_runs_that_start_while_the_server_restarts_all_do_their_work(operated: Operation) -> None:
    operated.chats("starting.jsonl", 2)
    runs = []
    # When the server stops, some runs are not taken yet, some are being taken, some are importing Prefect.
    for number in range(6):
        runs.append(
            operated.trigger(
                "curate/fake", input=["data/starting.jsonl"], output=f"results/starting-{number}"
            )
        )
        time.sleep(0.4)
    operated.server.stop()
    operated.server.start()
    operated.server.until_it_answers()

    def are_done() -> bool:
        # A run whose process could not start is *Crashed* for half a minute before it starts again.
        states = [operated.client.read_flow_run(run.id).state_type for run in runs]
        return states == [StateType.COMPLETED] * len(runs)

    eventually(are_done, "all runs have done their work")


def test_a_run_that_its_worker_took_and_never_began_starts_again(
    operated: Operation, never_begun: FlowRun
) -> None:
    ended = operated.ended(never_begun.id)
    assert ended.state_type == StateType.COMPLETED
    assert operated.manifest("never-begun")["rows"]["kept"] == 2
    said = [state.message for state in operated.client.read_flow_run_states(never_begun.id)]
    assert "A worker took this run and never began it. It starts again." in said


def test_a_run_whose_worker_died_is_found_and_a_retry_finishes_it(operated: Operation, lost: Lost) -> None:
    ended = operated.ended(lost.run.id, 90)
    assert ended.state is not None
    assert ended.state.type == StateType.CRASHED
    assert (ended.state.message or "").startswith("Nothing was heard of its process")
    assert len(operated.calls(lost.keys)) == PART

    operated.let_go("lost")
    operated.client.set_flow_run_state(lost.run.id, Scheduled(name="AwaitingRetry"), force=True)
    with operated.worker(lost.pool):
        until(lambda: not _is_final(operated, lost.run), 10, "the retry")
        assert operated.ended(lost.run.id).state_type == StateType.COMPLETED
    assert operated.manifest("lost")["rows"]["kept"] == 2 * PART
    assert sorted(operated.calls(lost.keys)) == sorted(lost.keys), "a turn was scored twice, or never"


def test_the_automation_that_looks_for_dead_runs_knows_every_end_of_a_living_one(operated: Operation) -> None:
    (automation,) = operated.client.read_automations_by_name("assay-crashed-runs")
    assert automation.enabled
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    # Two in a row may be lost.
    assert trigger.within.total_seconds() > 3 * 30
    named = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Suspended")}
    assert named | {SUSPENDED_EVENT} <= trigger.expect


def test_a_schedule_fires_by_itself(operated: Operation) -> None:
    def runs() -> list[Any]:
        found = operated.client.read_flow_runs()
        return [run for run in found if run.auto_scheduled and run.state_type == StateType.COMPLETED]

    eventually(runs, "a scheduled run that completed")
    assert operated.manifest("nightly")["rows"]["kept"] == 3


@pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL is not installed: apt-get install postgresql")
def test_the_server_keeps_its_runs_in_postgresql(operated: Operation) -> None:
    assert operated.database.startswith("postgresql+asyncpg://")
    assert not list(operated.folder.rglob("*.db"))
