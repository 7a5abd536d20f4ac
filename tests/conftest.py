"""Fixtures for all tests. Being here, it also puts this folder on the path of the tests below it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module imports Prefect: settings of nobody's profile, and nothing on the console."""
    for name in [
        name for name in os.environ if name.startswith(("PREFECT_", "ASSAY_")) and name != "ASSAY_TEST_DATA"
    ]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="assay-prefect-")
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ["DO_NOT_TRACK"] = "1"


def pytest_unconfigure(config: pytest.Config) -> None:
    import shutil

    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a real Prefect server, one for all tests, configured in this process and its children."""
    from flows.embedded_server import EmbeddedServer

    server = EmbeddedServer(tmp_path_factory.getbasetemp() / "served" / "prefect")
    server.start()
    try:
        server.wait(120, print)
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker
        from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        os.environ["PREFECT_API_URL"] = server.api_url
        quick = {PREFECT_API_URL: server.api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        with temporary_settings(quick):
            yield server.api_url
            # What is not sent by now would be tried again for a minute after the server is gone.
            EventsWorker.drain_all(timeout=5)
            APILogWorker.drain_all(timeout=5)
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        server.stop()


@pytest.fixture
def assay_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``ASSAY_HOME``, also for the processes a test starts."""
    home = tmp_path / "assay-home"
    monkeypatch.setenv("ASSAY_HOME", str(home))
    return home
