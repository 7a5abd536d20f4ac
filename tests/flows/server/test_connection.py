"""A configured server is used or told to be away; settings last as long as the run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import ROOT

from assay.config.settings import Settings
from assay.core.errors import ServerFault, UserMistake
from assay.storage.home import Home
from flows.server.connection import Connection, connected, server_of_the_run


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, server_answer_seconds=1.0)


@contextmanager
def prefect_server(home: Home, settings: Settings) -> Iterator[Connection]:
    with server_of_the_run(home) as embedded, connected(embedded, settings, print) as connection:
        yield connection


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def connected_to(url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", url)
    with (
        temporary_settings({PREFECT_API_URL: url}),
        prefect_server(Home(settings.home), settings),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deaf_port", "closed_port"])
def test_a_configured_server_that_is_away_fails_fast_with_a_hint(
    kind: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    import prefect.client.orchestration  # noqa: F401  (seconds of it are not the server's)

    url = f"http://127.0.0.1:{request.getfixturevalue(kind)}/api"
    began = time.monotonic()
    with pytest.raises(ServerFault) as fault:
        connected_to(url, settings, monkeypatch)
    assert time.monotonic() - began < 30
    assert url in str(fault.value)
    assert "prefect server start" in str(fault.value)
    assert "PREFECT_API_URL" in str(fault.value)
    assert not Home(settings.home).prefect.exists()


def test_a_server_that_asks_for_a_login_is_reported_before_any_work(
    prefect_api: str, settings: Settings
) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

    with (
        temporary_settings({PREFECT_API_AUTH_STRING: "assay:wrong"}),
        pytest.raises(UserMistake, match=r"asks for a login.* Set PREFECT_API_AUTH_STRING=user:password"),
        prefect_server(Home(settings.home), settings),
    ):
        pass


def test_a_configured_server_is_used_and_no_other_started(
    prefect_api: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr("flows.server.connection.EmbeddedServer.start", refused)
    with prefect_server(Home(settings.home), settings) as connection:
        assert connection.api_url == prefect_api
        assert not connection.embedded


def test_settings_of_a_run_are_gone_after_it(
    prefect_api: str,
    settings: Settings,
    prefect_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    before = dict(os.environ)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        # The folder of the tests' own server: its database need not be made again.
        home = Home(prefect_folder)
        with prefect_server(home, settings) as connection:
            assert connection.embedded
            assert get_current_settings().api.url == os.environ["PREFECT_API_URL"] == connection.api_url
        assert get_current_settings().api.url is None
    assert dict(os.environ) == before


PUT_OFF = """
import sys
from flows.server.connection import _UNUSED, _put_off
_put_off(*_UNUSED)
import prefect.flows
print([name for name in _UNUSED if "Field" in object.__getattribute__(sys.modules[name], "__dict__")])
from prefect.blocks import notifications, webhook
print(notifications.SlackWebhook.__name__, webhook.Webhook.__name__)
"""


@pytest.mark.slow
def test_modules_that_are_put_off_are_there_once_they_are_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PUT_OFF], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["[]", "SlackWebhook Webhook"]
