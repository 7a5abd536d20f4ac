"""``python fake_curate.py …`` is ``python -m flows.curate …`` with a reward model of no weights.

FAKE_MODEL and FAKE_FINGERPRINT are the model's folder and fingerprint. The tests' folder has to be on
the path, for the workers too. The login of the run's own server is written to the file SHOW_LOGIN.
"""

from __future__ import annotations

import os
from pathlib import Path

import fakes

from assay.rewards.spec import LocalSpec
from flows.command.main import run_module
from flows.curate import prepare
from flows.server import connection
from flows.server.embedded import EmbeddedServer


def fake_model(name: str, *known: object, **options: object) -> LocalSpec:
    return fakes.spec(Path(os.environ["FAKE_MODEL"]), os.environ["FAKE_FINGERPRINT"])


class ShownServer(EmbeddedServer):
    def start(self) -> None:
        super().start()
        Path(os.environ["SHOW_LOGIN"]).write_text(self.login)


if __name__ == "__main__":
    vars(prepare)["find_model"] = fake_model
    if "SHOW_LOGIN" in os.environ:
        vars(connection)["EmbeddedServer"] = ShownServer
    run_module("curate")
