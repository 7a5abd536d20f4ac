"""Fixtures for all tests. Being here, it also puts this folder on the path of the tests below it."""

from __future__ import annotations

import multiprocessing.process
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import lifeline
import pytest
from patience import TEST_SECONDS

#: Fixtures that start a server.
SERVERS = {"prefect_api", "s3_server"}


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module imports Prefect: settings of nobody's profile, and nothing on the console."""
    for name in [
        name for name in os.environ if name.startswith(("PREFECT_", "ASSAY_")) and name != "ASSAY_TEST_DATA"
    ]:
        del os.environ[name]
    run = Path(os.environ[lifeline.MARK]) if _is_worker(config) else lifeline.begin()
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-", dir=run)
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ["DO_NOT_TRACK"] = "1"
    # Several processes test at once: a thread a core in each would be more than the cores hold.
    os.environ["OMP_NUM_THREADS"] = "1"
    # Hypothesis sets tests no deadline: another process may be using the core.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")


def _is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of several that pytest-xdist started."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts servers, keep tests that share a fixture in one process, begin with the slow ones."""
    for item in items:
        assert isinstance(item, pytest.Function)
        if "operated" in item.fixturenames:
            item.add_marker("operated")
            item.add_marker(pytest.mark.xdist_group("operated"))
        if item.get_closest_marker("faults") or item.get_closest_marker("operated"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
        if SERVERS & set(item.fixturenames):
            item.add_marker("slow")
        if item.get_closest_marker("xdist_group") is None and _has_fixture_of_module(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _has_fixture_of_module(item: pytest.Function) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs.values()
    return any(found[-1].scope == "module" for found in definitions)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the test run's servers; a process that tests left behind fails the run."""
    from assay.rewards.templates import PROCESS

    PROCESS.close()
    if _is_worker(session.config):
        return
    left = lifeline.finish(Path(os.environ[lifeline.MARK]))
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        reporter.write_line("")
        for command in left:
            reporter.write_line(f"left behind by a test: {command}", red=True)


@pytest.fixture(autouse=True)
def _no_process_in_a_quick_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts Dask's processes is marked, so that ``make test-fast`` stays fast."""
    if not {mark.name for mark in request.node.iter_markers()} & {"slow", "operated", "faults"}:

        def refused(process: object) -> None:
            raise RuntimeError(f"{request.node.name} starts a process: mark it slow")

        monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refused)


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The API of a real Prefect server, one for all tests, configured in this process and its children."""
    api_url, login = lifeline.shared("prefect").split()
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    os.environ["PREFECT_API_URL"] = api_url
    os.environ["PREFECT_API_AUTH_STRING"] = login
    try:
        with temporary_settings(
            {
                PREFECT_API_URL: api_url,
                PREFECT_API_AUTH_STRING: login,
                PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            }
        ):
            yield api_url
            # What is not sent by now would be tried again for a minute after the server is gone.
            EventsWorker.drain_all(timeout=5)
            APILogWorker.drain_all(timeout=5)
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        os.environ.pop("PREFECT_API_AUTH_STRING", None)


@pytest.fixture
def prefect_folder(prefect_api: str) -> Path:
    """Where the tests' Prefect server has its database and its log."""
    return lifeline.shared_folder("prefect")


@pytest.fixture
def assay_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``ASSAY_HOME``, also for the processes a test starts."""
    home = tmp_path / "assay-home"
    monkeypatch.setenv("ASSAY_HOME", str(home))
    return home


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; only root can have one."""
    disk = tmp_path / "small"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def s3_server() -> str:
    """The address of a server on loopback that speaks S3, one for all tests."""
    return lifeline.shared("s3")


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that speaks S3, configured in this process and its children."""
    from assay.storage.s3 import _client

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "canary-secret-of-s3",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",
    }.items():
        monkeypatch.setenv(name, value)
    _client.cache_clear()
    yield s3_server
    _client.cache_clear()


@pytest.fixture
def bucket(s3: str) -> str:
    """``s3://BUCKET/scores`` of a bucket of this test's own."""
    from assay.storage.s3 import _client

    name = f"test-{uuid.uuid4().hex[:12]}"
    _client().create_bucket(Bucket=name)
    return f"s3://{name}/scores"
