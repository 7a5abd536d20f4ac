"""From a command line to an exit code: what a run finds, and how its process ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from assay.storage.home import Home
from flows.command.launch import _what_ended_the_run
from flows.server.connection import Connection


@pytest.mark.faults
def test_a_full_disk_under_the_server_is_named(small_disk: Path, tmp_path: Path) -> None:
    failed = RuntimeError("500 Internal Server Error")
    of_the_server = "the Prefect server at http://a/api failed"
    for root, embedded, said in (
        (tmp_path / "home", True, of_the_server),
        (small_disk, True, f"{small_disk}/prefect: No space left on device.* Make room"),
        # What a server elsewhere failed of is not known here.
        (small_disk, False, of_the_server),
    ):
        home = Home(root)
        home.prefect.mkdir(parents=True, exist_ok=True)
        fault = _what_ended_the_run(Connection("http://a/api", embedded), failed, home)
        assert re.search(said, str(fault)), fault


#: The flow says whether garbage is collected, an exit handler that Python takes itself apart.
COMMAND = """
import atexit, dataclasses, gc, sys, types
from flows.command import curate, main
from flows.command.launch import launch
atexit.register(print, "took itself apart")

def flow(options):
    print(f"garbage is collected: {gc.isenabled()}")
    return types.SimpleNamespace(complete=True, unusable=None)

curate.COMMAND = dataclasses.replace(curate.COMMAND, check=lambda *given: None, flow=lambda: flow,
    rerun=lambda *given: None)
sys.argv = ["curate", "--input", "x", "--output", "y"]
%s
main.run_module("curate")
"""
DELIVERED = """
from uuid import uuid4
from flows.command import console, launch as launching
launching.deliver_reports = lambda run, seconds: print("delivered")
console.Console.flow_run_id = property(lambda self: uuid4(), lambda self, value: None)
"""


def done(tmp_path: Path, server: dict[str, str], before: str = "") -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-c", COMMAND % before],
        cwd=ROOT,
        env={**kept, **server, "ASSAY_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
def test_a_run_collects_garbage_and_its_process_ends_at_once_when_all_is_delivered(tmp_path: Path) -> None:
    said = done(tmp_path, {}, DELIVERED).stdout.splitlines()
    assert said == ["garbage is collected: True", "delivered"]


def test_a_run_on_another_server_leaves_prefect_the_time_to_send_what_it_holds(
    tmp_path: Path, prefect_api: str
) -> None:
    configured = {name: os.environ[name] for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")}
    said = done(tmp_path, configured).stdout.splitlines()
    assert said == ["garbage is collected: True", "took itself apart"]
