"""What a person sees in Prefect's pages, in a real browser: the form, the run, its artifacts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar, NamedTuple

import httpx
import pytest
from listening import listening
from operation import LOGIN, Operation
from prefect.client.schemas.objects import FlowRun
from pydantic import BaseModel

from assay.config.evaluate_options import EvaluateOptions
from assay.config.options import RunOptions
from assay.config.verify_options import VerifyOptions

CHROMIUM = shutil.which("chromium")

#: How long a page may take to be drawn: first, and when it is looked at again.
_PATIENCE_SECONDS = (12, 30, 60)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
)


class Seen(NamedTuple):
    """A page that a browser has drawn."""

    words: str
    markup: str


Look = Callable[[str, str, str], Seen]


@pytest.fixture(scope="module")
def run(operated: Operation) -> FlowRun:
    """A run to look at."""
    operated.chats("seen.jsonl", 6)
    started = operated.trigger("curate/fake", input=["data/seen.jsonl"], output="results/seen")
    return operated.ended(started.id)


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
        for key in ("Content-Type", "Location"):
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


@pytest.fixture
def page(pages: str, tmp_path: Path) -> Look:
    """Gives what a page says and its markup, once it says what is looked for; a screenshot is left here."""

    def look(path: str, name: str, until: str) -> Seen:
        # A browser that has to share its cores takes longer to draw.
        for patience in _PATIENCE_SECONDS:
            seen = drawn(path if path.startswith("http") else pages + path, name, patience)
            if re.search(until, seen.words, re.IGNORECASE):
                break
        return seen

    def drawn(address: str, name: str, patience: int) -> Seen:
        assert CHROMIUM is not None
        done = subprocess.run(
            [
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--hide-scrollbars", "--window-size=1300,2200", f"--user-data-dir={tmp_path / 'profile'}"),
                *(f"--timeout={patience * 1000}", f"--virtual-time-budget={patience * 1000}"),
                f"--screenshot={tmp_path / f'{name}.png'}",
                "--dump-dom",
                address,
            ],
            capture_output=True,
            text=True,
            timeout=patience + 90,
            check=True,
        )
        return Seen(" ".join(unescape(re.sub(r"<[^>]*>", " ", done.stdout)).split()), done.stdout)

    return look


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
    for key in ("scoring", "shards", "flow", "scores-helpfulness", "summary"):
        assert re.search(rf"\b{key}\b", said, re.IGNORECASE), key


def test_a_run_that_ended_by_a_mistake_is_on_its_deployments_page(operated: Operation, page: Look) -> None:
    mistaken = operated.trigger("curate/fake", input=["data/missing.jsonl"], output="results/mistaken")
    operated.ended(mistaken.id)
    deployment = operated.client.read_deployment_by_name("curate/fake")
    said = page(
        f"/deployments/deployment/{deployment.id}?tab=Runs", "runs", "curate to results/mistaken"
    ).words
    assert "curate to results/mistaken" in said
    said = page(f"/runs/flow-run/{mistaken.id}", "mistaken", "Finished in state").words
    assert "Mistake: data/missing.jsonl: there is no such file or folder" in said


def test_the_histogram_is_a_picture_that_the_page_shows(
    operated: Operation, run: FlowRun, page: Look
) -> None:
    about = "How the scores of helpfulness are spread"
    artifact = operated.artifacts(run.id)["scores-helpfulness-results-seen"]
    seen = page(f"/artifacts/artifact/{artifact.id}", "scores", about)
    assert about in seen.words
    assert '<img src="data:image/svg+xml;base64,' in seen.markup
