"""What a person sees in Prefect's pages, in a real browser: the form, the run, its artifacts."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar, NamedTuple

import httpx
import pytest
from browser import CHROMIUM, OpenPage, browser
from fakes import AWAY
from listening import listening
from operation import LOGIN, PART, Mailbox, Operation, eventually, until
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from pydantic import BaseModel

from assay.config.evaluate_options import EvaluateOptions
from assay.config.options import RunOptions
from assay.config.verify_options import VerifyOptions
from assay.storage.sealed import DIGEST
from flows.server.endings import EndKind

#: How long a page may take to be drawn by a browser that shares its cores.
_PATIENCE_SECONDS = 60.0
#: How long it may go on changing once it says what is looked for.
_SETTLED_SECONDS = 3.0

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
)


class Seen(NamedTuple):
    """A page that a browser has drawn."""

    words: str
    markup: str
    at: float = 0.0
    """When it first said what was looked for, by the clock that only goes forwards; 0 if never."""


Look = Callable[[str, str, str], Seen]


@pytest.fixture(scope="module")
def run(operated: Operation) -> FlowRun:
    """A run to look at."""
    operated.chats("seen.jsonl", 6)
    started = operated.trigger("curate/fake", input=["data/seen.jsonl"], output="results/seen")
    return operated.ended(started.id)


@pytest.fixture(scope="module")
def ends(operated: Operation) -> dict[str, FlowRun]:
    """Ended runs of deployments, by how the message of their end begins."""
    return {**_one_of_each_kind(operated), "Unverified: ": _one_that_is_not_verified(operated)}


class LoggedIn(BaseHTTPRequestHandler):
    """Hands on what a browser asks for, with the login that a person types once and the browser keeps."""

    server_address_behind: ClassVar[str] = ""

    def do_GET(self) -> None:
        self._hand_on(None)

    def do_POST(self) -> None:
        self._hand_on(self.rfile.read(int(self.headers["Content-Length"])))

    def _hand_on(self, body: bytes | None) -> None:
        name, _, password = LOGIN.partition(":")
        kept = {"Accept", "Content-Type", "User-Agent"}
        answer = httpx.request(
            self.command,
            self.server_address_behind + self.path,
            content=body,
            headers={key: value for key, value in self.headers.items() if key in kept},
            auth=(name, password),
            timeout=30,
        )
        content = answer.content
        if self.path.endswith("/ui-settings"):
            # The address of the API stays as the server gives it: below the page's own.
            content = json.dumps({**answer.json(), "auth": None}).encode()
        self.send_response(answer.status_code)
        for key in ("Content-Type", "Location", "ETag", "Last-Modified", "Cache-Control"):
            if key in answer.headers:
                self.send_header(key, answer.headers[key])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def pages(operated: Operation) -> Iterator[str]:
    """The address of Prefect's pages for a browser that has logged in."""
    LoggedIn.server_address_behind = operated.pages
    with listening(LoggedIn) as address:
        yield address


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    """A browser that stays open, with a window that is high enough for a whole form."""
    with browser(tmp_path_factory.mktemp("browser")) as page:
        page.look(width=1300, height=2200)
        yield page


@pytest.fixture
def page(pages: str, opened: OpenPage, tmp_path: Path) -> Look:
    """Gives what a page says and its markup, once it says what is looked for; a screenshot is left here."""

    def look(path: str, name: str, until: str) -> Seen:
        opened.open(path if path.startswith("http") else pages + path)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        before, seen, found = "", _drawn(opened), 0.0
        # A page is drawn piece by piece, and that of a run never stays the same.
        while time.monotonic() < deadline and not (found and seen.words == before):
            if not found and re.search(until, seen.words, re.IGNORECASE):
                found = time.monotonic()
                deadline = found + _SETTLED_SECONDS
            time.sleep(0.3)
            before, seen = seen.words, _drawn(opened)
        opened.screenshot(tmp_path / f"{name}.png")
        # What moves on a page would take a core from the next run.
        opened.open("about:blank")
        return seen._replace(at=found)

    return look


def _drawn(opened: OpenPage) -> Seen:
    markup: str = opened.ask("document.documentElement.outerHTML")
    return Seen(" ".join(unescape(re.sub(r"<[^>]*>", " ", markup)).split()), markup)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("curate/curate", RunOptions),
        ("verify/verify-gpu", VerifyOptions),
        ("evaluate/evaluate", EvaluateOptions),
    ],
)
def test_the_form_names_every_option_and_says_what_it_is(
    operated: Operation, page: Look, name: str, options: type[BaseModel]
) -> None:
    deployment = operated.client.read_deployment_by_name(name)
    schema = options.model_json_schema()["properties"]
    group = schema.pop("advanced")
    fields = [*schema.values(), group, *group["properties"].values()]
    *_, last = (re.escape(field["title"]) for field in fields)
    said = page(f"/deployments/deployment/{deployment.id}/run", "form", last).words
    for field in fields:
        assert f" {field['title']} " in said
        assert field["description"] in said
    # What the command line takes and a deployment refuses is not offered.
    assert not re.search(r"s3://|Hub id|Hugging Face id|given first, alone", said)
    titles = [field["title"] for field in fields]
    places = [said.index(f" {title} ") for title in titles]
    assert places == sorted(places)


def test_who_has_not_logged_in_is_asked_for_a_password(operated: Operation, page: Look) -> None:
    # Prefect's pages differ by version: a form, or a refusal.
    asked = r"log ?in|password|authentication failed"
    said = page(operated.pages + "/deployments", "login", asked).words
    assert re.search(asked, said, re.IGNORECASE), said
    assert "nightly" not in said


def test_a_runs_page_shows_how_it_ended_and_its_artifacts(
    operated: Operation, run: FlowRun, page: Look
) -> None:
    said = page(f"/runs/flow-run/{run.id}", "run", "Finished in state").words
    assert "curate to results/seen" in said
    assert "Completed" in said
    assert "data:seen.jsonl" in said
    assert "Finished in state Completed('6 of 6 records kept')" in said
    said = page(f"/v2/runs/flow-run/{run.id}?tab=Artifacts", "artifacts", r"\bsummary\b").words
    for key in ("scoring", "shards", "flow", "scores-helpfulness", "examples", "summary"):
        assert re.search(rf"\b{key}\b", said, re.IGNORECASE), key


def _one_of_each_kind(operated: Operation) -> dict[str, FlowRun]:
    """Ended runs of the deployment ``curate/fake``, by how the message of their end begins."""

    def ended(name: str) -> FlowRun:
        run = operated.trigger("curate/fake", input=[f"data/{name}"], output="results/" + name.split(".")[0])
        return operated.ended(run.id)

    operated.chats("ends-well.jsonl", 2)
    operated.chats("ends-cut.jsonl", 200)
    whole = gzip.compress((operated.data / "ends-cut.jsonl").read_bytes())
    (operated.data / "ends-cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    rows = (operated.data / "ends-well.jsonl").read_text()
    (operated.data / "ends-early.jsonl").write_text(rows.replace("question", f"What {AWAY}, question"))
    (operated.data / "ends-badly.jsonl").write_text("no JSON\n")
    keys = operated.chats("ends-killed.jsonl", PART, ["killed"])
    killed = operated.trigger(
        "curate/fake", input=["data/ends-killed.jsonl"], output="results/ends-killed", shard_tokens=30
    )
    eventually(lambda: len(operated.calls(keys)) == PART, "the first part")
    operated.process(killed.id).kill()
    return {
        "Process exited with status code: -9": operated.ended(killed.id),
        "2 of 2 records kept": ended("ends-well.jsonl"),
        "Mistake: data/ends-nowhere.jsonl": ended("ends-nowhere.jsonl"),
        "Incomplete: ": ended("ends-cut.jsonl.gz"),
        "Stopped: the fake is away": ended("ends-early.jsonl"),
        "No record": ended("ends-badly.jsonl"),
    }


def _one_that_is_not_verified(operated: Operation) -> FlowRun:
    unverified = FlowRunFilter(tags=FlowRunFilterTags(all_=[EndKind.UNVERIFIED.tag]))
    if there := operated.client.read_flow_runs(flow_run_filter=unverified, limit=1):
        # Another test has made one, which takes a while.
        return there[0]
    named = "results/golden/pages.json"
    recorded = operated.trigger("verify/verify", model="starter", record=named)
    assert operated.ended(recorded.id).state_type == StateType.COMPLETED
    golden = operated.results / "golden/pages.json"
    altered = json.loads(golden.read_bytes())
    altered["rows"][0]["scores"][0][0] += 0.5
    del altered[DIGEST]
    golden.write_text(json.dumps(altered))
    return operated.ended(operated.trigger("verify/verify", model="starter", check=named).id)


def test_who_operates_is_notified_of_a_run_whose_process_was_killed(ends: dict[str, FlowRun]) -> None:
    assert "Process exited with status code: -9" in ends
    begins = "curate to results/ends-killed: Process exited with status code: -9"
    eventually(
        lambda: [said for said in Mailbox.bodies() if said.startswith(begins) and "a retry goes on" in said],
        "a notification",
    )


@pytest.mark.parametrize("ui", ["", "/v2"])
def test_a_run_is_on_its_deployments_page_however_it_ended(
    operated: Operation, ends: dict[str, FlowRun], page: Look, ui: str
) -> None:
    for deployment in {run.deployment_id for run in ends.values()}:
        made = {message: run for message, run in ends.items() if run.deployment_id == deployment}
        *_, last = made.values()
        among = re.escape(last.name)
        seen = page(f"{ui}/deployments/deployment/{deployment}?tab=Runs", "runs", among)
        for message, run in made.items():
            assert run.state is not None
            assert (run.state.message or "").startswith(message)
            assert f"/runs/flow-run/{run.id}" in seen.markup, message
            assert run.name in seen.words


@pytest.mark.timed
def test_a_mistake_is_seen_within_ten_seconds_while_another_run_works(
    operated: Operation, pages: str, opened: OpenPage
) -> None:
    operated.chats("busy.jsonl", PART, ["busy"])
    options: dict[str, object] = {"input": ["data/busy.jsonl"], "output": "results/busy"}
    working = operated.trigger("curate/fake", **options, shard_tokens=30)
    eventually(operated.is_computing, "a run that works")
    mistakes: dict[str, dict[str, object]] = {
        r"Mistake: data/busi\.jsonl: there is no such file": {"input": ["data/busi.jsonl"]},
        "Mistake: In a rule, character 1: unknown attribute `helpfullness`": {"keep": ["helpfullness > 1"]},
        "Mistake: .*takes a model by its name": {"model": "http://169.254.169.254/"},
    }
    schema = operated.client.read_deployment_by_name("curate/curate").parameter_openapi_schema
    for number, (said, wrong) in enumerate(mistakes.items()):
        # A form that is filled in with the mistake.
        operated.deploy_fake(
            f"mistaken-{number}",
            parameters={"options": {**options, **wrong}},
            parameter_openapi_schema=schema,
            enforce_parameter_schema=False,
        )
        deployment = operated.client.read_deployment_by_name(f"curate/mistaken-{number}")
        opened.open(f"{pages}/deployments/deployment/{deployment.id}/run")
        until(lambda: _click(opened, "Submit"), _PATIENCE_SECONDS, "a form to submit")
        began = time.monotonic()
        seen_after = None
        while seen_after is None and time.monotonic() < began + _PATIENCE_SECONDS:
            _click(opened, "View run")
            if re.search(said, opened.ask("document.body.innerText")):
                seen_after = time.monotonic() - began
            time.sleep(0.3)
        (run,) = operated.client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
        )
        assert seen_after is not None, f"never seen; {_course_of(operated, run)}"
        assert f"/runs/flow-run/{run.id}" in opened.ask("location.pathname")
        assert seen_after < 10, f"seen after {seen_after:.1f} s; {_course_of(operated, run)}"
        opened.open("about:blank")
    assert operated.client.read_flow_run(working.id).state_type == StateType.RUNNING
    operated.let_go("busy")
    assert operated.ended(working.id).state_type == StateType.COMPLETED


def _click(opened: OpenPage, button: str) -> bool:
    """Click the last button with this text; whether there is one."""
    found = f"[...document.querySelectorAll('button')].filter(one => one.innerText.trim() === {button!r})"
    return bool(opened.ask(f"(found => found.length && (found.at(-1).click(), true))({found})"))


def _course_of(operated: Operation, run: FlowRun) -> str:
    """Which states the run was in, each with seconds since somebody asked for it."""
    states = operated.client.read_flow_run_states(run.id)
    began = min(state.timestamp for state in states)
    return ", ".join(f"{state.name} {(state.timestamp - began).total_seconds():.1f} s" for state in states)


def test_the_histogram_is_a_picture_that_the_page_shows(
    operated: Operation, run: FlowRun, page: Look
) -> None:
    about = "How the scores of helpfulness are spread"
    artifact = operated.artifacts(run.id)["scores-helpfulness-results-seen"]
    seen = page(f"/artifacts/artifact/{artifact.id}", "scores", about)
    assert about in seen.words
    assert '<img src="data:image/svg+xml;base64,' in seen.markup
