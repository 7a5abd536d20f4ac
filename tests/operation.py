"""An operated Assay of real parts on loopback: PostgreSQL, Prefect's server, a worker, a Dask cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from itertools import product
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import fakes
import psutil
from distributed import Client
from listening import listening
from patience import PATIENCE_SECONDS
from places import ROOT
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from assay.config.settings import Settings
from assay.core.schema import Message, turn_keys
from assay.workers.environment import WORKER_ENVIRONMENT
from deployments import register, serve

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)


HOOK = "operator"

#: Of all who may use the server.
LOGIN = "operator:of the tests"

#: Records of a run that are scored, or held, together.
PART = 8


class Mailbox(BaseHTTPRequestHandler):
    """Where the operator is notified."""

    letters: ClassVar[list[dict[str, str]]] = []

    @classmethod
    def bodies(cls) -> list[str]:
        return [letter["body"] for letter in cls.letters]

    def do_POST(self) -> None:
        self.letters.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def mailbox() -> Iterator[str]:
    """The address of a mailbox on loopback."""
    with listening(Mailbox) as address:
        yield f"{address}/"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(true: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def eventually(true: Callable[[], Any], what: str) -> None:
    """Wait until it is so, however busy the machine is."""
    until(true, PATIENCE_SECONDS, what)


@contextmanager
def process(
    command: Sequence[str], log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own session, ended with all of it."""
    with log.open("ab") as file:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=ROOT
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


class Server:
    """Prefect's server, which can be started again under those who use it."""

    def __init__(self, port: int, folder: Path, environment: dict[str, str]) -> None:
        self._started = partial(
            process,
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            folder / "server.log",
            environment,
        )
        self._health = f"http://127.0.0.1:{port}/api/health"
        self._running = ExitStack()

    def start(self) -> None:
        self._running.enter_context(self._started())

    def until_it_answers(self) -> None:
        eventually(lambda: answers(self._health), "Prefect's server")

    def stop(self) -> None:
        self._running.close()


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a fresh database, for Prefect."""
    assert POSTGRES is not None
    # pytest's own folders are closed to other users, and PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="assay-postgres-"))
    as_user: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data, port = folder / "data", free_port()
    subprocess.run(
        [*as_user, str(POSTGRES / "initdb"), "-D", str(data), "-U", "assay", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd="/",
    )
    control = [*as_user, str(POSTGRES / "pg_ctl"), "-D", str(data)]
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    subprocess.run(
        [*control, "-o", options, "-l", str(folder / "log"), "-w", "start"],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        yield f"postgresql+asyncpg://assay@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [*control, "-m", "fast", "-w", "stop"], check=False, stdout=subprocess.DEVNULL, cwd="/"
        )
        shutil.rmtree(folder)


@dataclass
class Operation:
    """What runs, and where it works."""

    folder: Path
    api_url: str
    database: str
    dask_workers: list[subprocess.Popen[bytes]]
    client: SyncPrefectClient
    dask: Client
    worker_environment: dict[str, str]
    server: Server
    held: set[str] = field(default_factory=set)
    """What the fake model waits for, by name."""

    @property
    def pages(self) -> str:
        return self.api_url.removesuffix("/api")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def calls(self, keys: Collection[str]) -> list[str]:
        """What the fake model was asked for, of those turns."""
        return [call for call in fakes.calls(self.folder / "model") if call in keys]

    def is_computing(self) -> bool:
        """Whether any Dask worker computes anything, wanted or not."""
        return any(self.dask.run(lambda dask_worker: bool(dask_worker.active_threads)).values())

    def process(self, run: UUID) -> psutil.Process:
        """The process that the worker started for the run."""
        _, _, number = (self.client.read_flow_run(run).infrastructure_pid or "").rpartition(":")
        return psutil.Process(int(number))

    def segments(self) -> int:
        return len(list((self.folder / "home/scores").rglob("*.parquet")))

    def trigger(self, deployment: str, **options: object) -> FlowRun:
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id, parameters={"options": options})

    def ended(self, run: UUID, seconds: float = PATIENCE_SECONDS) -> FlowRun:
        """The run in its final state."""
        found: list[FlowRun] = []

        def is_final() -> bool:
            found[:] = [self.client.read_flow_run(run)]
            return found[0].state is not None and found[0].state.is_final()

        until(is_final, seconds, f"an end of run {run}")
        return found[0]

    def artifacts(self, run: UUID) -> dict[str, Any]:
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        return {found.key or "": found for found in self.client.read_artifacts(artifact_filter=chosen)}

    def logged(self, run: UUID) -> list[str]:
        """What the run has said in its log, by what the server has of it."""
        chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
        return [line.message for line in self.client.read_logs(chosen)]

    def has_logged(self, run: UUID, pattern: str) -> bool:
        """Whether a line of the run's log is of this pattern."""
        return any(re.fullmatch(pattern, line) for line in self.logged(run))

    def manifest(self, output: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.results / output / "manifest.json").read_bytes())
        return found

    def chats(self, name: str, count: int, held: Sequence[str] = ()) -> set[str]:
        """Write a file of conversations of one turn; the turns' keys.

        ``count`` that are scored at once, then as many for each of ``held``, which are until that is let go.
        """
        keys = set()
        self.held.update(held)
        # The heavier ones are given to workers first, and each is a shard where those are of 30 tokens.
        kinds = ["at once " * 20]
        kinds += [f"{'later ' * (22 - 2 * place)} {fakes.HELD} {one}" for place, one in enumerate(held)]
        with (self.data / name).open("w") as file:
            for words, number in product(kinds, range(count)):
                messages = [
                    {"role": "user", "content": f"question {number} of {name} {words}"},
                    {"role": "assistant", "content": f"answer {number}"},
                ]
                file.write(json.dumps({"messages": messages}) + "\n")
                keys |= {turn.key.hex() for turn in turn_keys(Message(**message) for message in messages)}
        return keys

    def let_go(self, held: str) -> None:
        """Have the fake model score what is held by that name."""
        model = self.folder / "model"
        model.mkdir(exist_ok=True)
        (model / held).touch()

    def command(self, *arguments: str, flow: str = "curate") -> subprocess.CompletedProcess[str]:
        """``python -m flows.curate`` of somebody who knows the server and has no settings of its operator."""
        started = self.started(*arguments, flow=flow)
        out, err = started.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess(started.args, started.returncode, out, err)

    def started(self, *arguments: str, flow: str = "curate") -> subprocess.Popen[str]:
        """The same, under way."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ASSAY_", "PREFECT_"))
        }
        return subprocess.Popen(
            [sys.executable, "-m", f"flows.{flow}", *arguments],
            cwd=ROOT,
            env={
                **kept,
                "PREFECT_API_URL": self.api_url,
                "PREFECT_API_AUTH_STRING": LOGIN,
                "PREFECT_HOME": str(self.folder / "prefect"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self, resource: str) -> list[dict[str, Any]]:
        """Events of that resource."""
        found = self.client.request(
            "POST", "/events/filter", json={"filter": {"resource": {"id": [resource]}}, "limit": 50}
        )
        events: list[dict[str, Any]] = found.json()["events"]
        return events

    @contextmanager
    def worker(self, pool: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of that pool."""
        with (self.folder / f"worker-{pool}.log").open("ab") as log:
            worker = serve.start_worker(self.worker_environment, output=log, pool=pool)
        try:
            yield worker
        finally:
            serve.stop(worker)

    def deploy_fake(
        self,
        name: str,
        *,
        pool: str = register.POOL,
        every_minute: dict[str, object] | None = None,
        **like: Any,
    ) -> None:
        """A deployment of the curate flow with the fake model; on a cron schedule, with those options."""
        schedules = []
        if every_minute is not None:
            from prefect.client.schemas.schedules import CronSchedule

            schedules.append(
                DeploymentScheduleCreate(
                    schedule=CronSchedule(cron="* * * * *", timezone="UTC"),
                    active=True,
                    parameters={"options": every_minute},
                )
            )
        self.client.create_deployment(
            flow_id=self.client.create_flow_from_name("curate"),
            name=name,
            entrypoint="tests/deployments/fake_curate.py:curate",
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
            work_pool_name=pool,
            work_queue_name="cpu" if pool == register.POOL else None,
            schedules=schedules,
            **like,
        )


@dataclass
class Lost:
    """A run whose worker was killed together with it."""

    run: FlowRun
    pool: str
    keys: set[str]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _settings(folder: Path) -> Settings:
    """The operator's settings, as far as forms show them."""
    return Settings(data_roots={"data": folder / "data"}, output_roots={"results": folder / "results"})


@contextmanager
def operation(folder: Path) -> Iterator[Operation]:
    """All parts, up; what is in ``folder`` is theirs."""
    with ExitStack() as stack:
        for name in ("data", "results", "home"):
            (folder / name).mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        dask_port, port = free_port(), free_port()
        environment = {
            **kept,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "ASSAY_HOME": str(folder / "home"),
            "ASSAY_DATA_ROOTS": f"data={folder / 'data'}",
            "ASSAY_OUTPUT_ROOTS": f"results={folder / 'results'}",
            "ASSAY_SCHEDULER_ADDRESS": f"tcp://127.0.0.1:{dask_port}",
            "ASSAY_NOTIFICATION_BLOCK": f"{CustomWebhookNotificationBlock.get_block_type_slug()}/{HOOK}",
            "ASSAY_KEEP_DAYS": "30",
            "FAKE_MODEL": str(folder / "model"),
        }
        if POSTGRES is not None:
            database = stack.enter_context(postgres())
        else:
            database = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
        server_environment = {
            **environment,
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # As behind a proxy: the pages call the API at their own address.
            "PREFECT_SERVER_UI_API_URL": "/api",
            # A minute by default: a schedule that is made in a test fires in the next one.
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            # Half a minute by default.
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
        }
        python = sys.executable
        server = Server(port, folder, server_environment)
        stack.callback(server.stop)
        server.start()
        scheduler = [
            *(python, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(dask_port)),
            *("--dashboard-address", "127.0.0.1:0"),
        ]
        stack.enter_context(process(scheduler, folder / "scheduler.log", environment))
        dask_worker = [
            *(python, "-m", "dask", "worker", f"tcp://127.0.0.1:{dask_port}", "--nthreads", "1"),
            *("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"),
            *("--local-directory", str(folder / "dask")),
        ]
        workers = [
            stack.enter_context(
                process(dask_worker, folder / f"dask-{number}.log", {**environment, **WORKER_ENVIRONMENT})
            )
            for number in range(2)
        ]
        api_url = f"http://127.0.0.1:{port}/api"
        server.until_it_answers()
        worker_environment = {
            **environment,
            "PREFECT_API_URL": api_url,
            "PREFECT_API_AUTH_STRING": LOGIN,
        }
        stack.enter_context(temporary_settings({PREFECT_API_URL: api_url, PREFECT_API_AUTH_STRING: LOGIN}))
        register.prepare_pool(api_url)
        with get_client(sync_client=True) as earlier:
            # As an earlier version registered it.
            flow_id = earlier.create_flow_from_name("curate")
            earlier.create_deployment(flow_id=flow_id, name="curate", concurrency_limit=1)
        register.deploy(api_url, worker_environment, _settings(folder))
        register.watch_for_crashes(api_url)
        with (folder / "worker.log").open("ab") as log:
            worker = serve.start_worker(worker_environment, output=log, queues=["cpu"])
        stack.callback(serve.stop, worker)
        client = stack.enter_context(get_client(sync_client=True))
        CustomWebhookNotificationBlock(
            name=HOOK,
            headers=None,
            cookies=None,
            url=stack.enter_context(mailbox()),
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
        ).save(HOOK)
        dask = stack.enter_context(
            Client(f"tcp://127.0.0.1:{dask_port}", set_as_default=False, timeout=PATIENCE_SECONDS)
        )
        yield Operation(folder, api_url, database, workers, client, dask, worker_environment, server)
