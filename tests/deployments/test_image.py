"""The steps of the image make it, and its services, started as the compose file says, do a run.

No container engine is used: see ``image.py``. So what only an engine does, such as limits and networks, is
not tested.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from image import Image, image, why_not_here
from operation import eventually, free_port
from places import ROOT
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Running

pytestmark = [
    pytest.mark.operated,
    pytest.mark.skipif(why_not_here() is not None, reason=f"no image can be made: {why_not_here()}"),
]

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
#: The login in the compose file's ``.env``. An address has to escape some of these characters.
LOGIN = "operator:p@ss/w#rd"
USER = 10001


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with image(tmp_path_factory.mktemp("image")) as finished:
        yield finished


class Containers:
    """Services of the compose file, as processes in the image, on free ports of loopback."""

    def __init__(self, made: Image, logs: Path) -> None:
        self._made = made
        self._logs = logs
        self._ports = {port: str(free_port()) for port in ("4200", "8786", "8787", "8788", "8080")}

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['4200']}/api"

    def _here(self, text: str) -> str:
        """The text with the values of ``.env`` filled in, and with addresses on this machine."""
        text = re.sub(r"\$\{PREFECT_AUTH_STRING[^}]*\}", LOGIN, text)
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        for host in ("prefect-server", "dask-scheduler"):
            text = text.replace(f"{host}:", "127.0.0.1:").replace(f"'{host}'", "'127.0.0.1'")
        text = text.replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"\b(4200|878[678]|8080)\b", lambda found: self._ports[found[0]], text)

    def _command(self, name: str, words: Sequence[str]) -> list[str]:
        """The command line that runs ``words`` in the container of that service."""
        given = SERVICES[name].get("environment", {})
        # Without these variables Prefect uses SQLite: this test is not about PostgreSQL.
        kept = {one: self._here(value) for one, value in given.items() if "_DATABASE_" not in one}
        return self._made.command([self._here(word) for word in words], kept)

    @contextmanager
    def up(self, name: str) -> Iterator[None]:
        """Run the service inside this context, which begins once it is healthy."""
        words = list(SERVICES[name]["command"])
        if words[:2] == ["dask", "scheduler"]:
            words += ["--host", "127.0.0.1"]
        log = self._logs / f"{name}.log"
        with log.open("wb") as file:
            started = subprocess.Popen(self._command(name, words), stdout=file, stderr=file)
        try:
            check = self._command(name, SERVICES[name]["healthcheck"]["test"][1:])

            def is_healthy() -> bool:
                assert started.poll() is None, log.read_text()
                return subprocess.run(check, capture_output=True, check=False).returncode == 0

            eventually(is_healthy, name)
            yield
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()

    def done(self, name: str) -> str:
        """The output of a service that ends by itself, once it has."""
        done = subprocess.run(
            self._command(name, SERVICES[name]["command"]), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def log(self, name: str) -> str:
        return (self._logs / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def results(made: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host's folder for results. From here on, the image's own folders are read-only."""
    host = tmp_path_factory.mktemp("results")
    host.chmod(0o700)
    subprocess.run(["chown", f"{USER}:{USER}", str(host)], check=True)
    made.do(["mkdir", "-p", "/models"], user="0:0")
    made.mount("-o", "remount,ro", "{root}")
    for mounted in SERVICES["worker"]["tmpfs"]:
        path, _, options = mounted.partition(":")
        made.mount("-t", "tmpfs", "-o", options, "none", f"{{root}}{path}")
    # A new volume gets the owner of the image's folder.
    owner, group = made.do(["stat", "-c", "%u %g", "/var/lib/assay"]).split()
    made.mount("-t", "tmpfs", "-o", f"uid={owner},gid={group},mode=0755", "none", "{root}/var/lib/assay")
    made.mount("--bind", str(host), "{root}/results")
    made.mount("--bind", str(ROOT / "samples"), "{root}/data")
    made.mount("-o", "remount,bind,ro", "{root}/data")
    return host


def test_the_steps_of_the_image_leave_a_user_who_owns_what_runs_write_and_nothing_else(made: Image) -> None:
    assert made.do(["id"]).startswith(f"uid={USER}(assay) gid={USER}(assay)")
    assert made.do(["sh", "-c", "cd; pwd; ls -A"]) == "/home/assay\n"
    for folder in ("/home/assay", "/var/lib/assay", "/results"):
        made.do(["sh", "-c", f"touch {folder}/written && rm {folder}/written"])
    theirs = made.do(["sh", "-c", "find /app /data -writable -not -type l"])
    assert theirs == ""


def test_the_image_has_assay_compiled_and_finds_it_from_any_folder(made: Image) -> None:
    # A worker starts each run in a folder of its own.
    code = "import assay, flows, tasks; print(*(one.__path__[0] for one in (assay, flows, tasks)))"
    found = made.do(["python", "-c", code], folder="/home/assay").split()
    assert found == ["/app/assay", "/app/flows", "/app/tasks"]
    sources, compiled = (
        made.do(["find", "/app", "-name", f"*.{kind}"]).splitlines() for kind in ("py", "pyc")
    )
    assert len(sources) == len(compiled) > 300
    assert "curate" in made.do(["assay", "--help"], folder="/home/assay")


def test_services_of_the_image_that_may_write_nowhere_else_do_a_run(
    made: Image, results: Path, tmp_path: Path
) -> None:
    made.do(["sh", "-c", "! touch /app/written 2> /dev/null"], user="0:0")
    made.do(["sh", "-c", "touch ~/written /tmp/written /results/written && rm /results/written"])
    containers = Containers(made, tmp_path)
    with ExitStack() as stack:
        stack.enter_context(containers.up("prefect-server"))
        pages = httpx.get(containers.api_url.removesuffix("/api"), follow_redirects=True)
        assert "<title>" in pages.text, "the server shows its pages"
        stack.enter_context(containers.up("dask-scheduler"))
        stack.enter_context(containers.up("dask-worker"))
        containers.done("deploy")
        given = {PREFECT_API_URL: containers.api_url, PREFECT_API_AUTH_STRING: LOGIN}
        stack.enter_context(temporary_settings(given))
        client = stack.enter_context(get_client(sync_client=True))
        options = {"input": ["data/support.messages.jsonl"], "output": "results/natively", "model": "starter"}
        deployment = client.read_deployment_by_name("curate/curate")
        # A run that a worker left behind when it ended.
        lost = client.create_flow_run_from_deployment(deployment.id, state=Running())
        stack.enter_context(containers.up("worker"))
        assert client.read_flow_run(lost.id).state_type == StateType.CRASHED
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"options": options})
        found: list[FlowRun] = []

        def has_ended() -> bool:
            found[:] = [client.read_flow_run(run.id)]
            return found[0].state is not None and found[0].state.is_final()

        eventually(has_ended, "the run's end")
        assert found[0].state_type == StateType.COMPLETED, f"{found[0].state} {containers.log('worker')}"
        manifest = json.loads((results / "natively/manifest.json").read_bytes())
        assert manifest["rows"]["kept"] > 0
        assert {path.stat().st_uid for path in results.rglob("*")} == {USER}
        # The workers of the cluster have scored: the scores are in the volume.
        assert made.do(["sh", "-c", "find /var/lib/assay/scores -name '*.parquet'"])
