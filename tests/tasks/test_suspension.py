"""Whoever asks the server whether a run is still wanted goes on asking, also while the server is away."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from uuid import uuid4

import pytest
from listening import listening
from patience import PATIENCE_SECONDS
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import suspension


class Broken(BaseHTTPRequestHandler):
    """Answers nothing but that it cannot."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.slow
def test_a_server_that_fails_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = uuid4()
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(run))
    monkeypatch.setattr(suspension, "_LOOK_SECONDS", 0.05)
    with listening(Broken) as address, temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        asked = f"/api/flow_runs/{run}"
        deadline = time.monotonic() + PATIENCE_SECONDS
        with suspension.Wanted() as wanted:
            while Broken.asked.count(asked) < 3:
                assert wanted._looking.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            wanted.leave_if_unwanted()
