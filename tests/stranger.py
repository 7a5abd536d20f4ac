"""Another user of the same machine: what they can read, and what they can have a Prefect server do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

NOBODY = 65534

needs_two_users = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can start a process of another user: run the tests as root"
)

#: Imports first: the interpreter may lie where the other user cannot read.
_AS_NOBODY = """
import base64, encodings.idna, http.client, json, os, sys, urllib.error, urllib.request
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
asked = json.load(sys.stdin)
"""

_ASK = """
headers = {"Content-Type": "application/json"}
if asked["login"]:
    headers["Authorization"] = "Basic " + base64.b64encode(asked["login"].encode()).decode()
body = None if asked["body"] is None else json.dumps(asked["body"]).encode()
try:
    with urllib.request.urlopen(urllib.request.Request(asked["url"], body, headers), timeout=20) as answer:
        print(json.dumps([answer.status, json.loads(answer.read())]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, None]))
"""

_READ = """
try:
    with open(asked["path"], "rb") as file:
        print(json.dumps(file.read().decode(errors="replace")))
except PermissionError:
    print("null")
"""


def _as_nobody(program: str, **asked: object) -> Any:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _AS_NOBODY + program],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={},
    )
    return json.loads(done.stdout)


def asked_by_nobody(url: str, body: object = None, login: str | None = None) -> tuple[int, Any]:
    """The status and the JSON of what a process of the user ``nobody`` is answered."""
    status, answer = _as_nobody(_ASK, url=url, body=body, login=login)
    return status, answer


def read_by_nobody(path: Path) -> str | None:
    """What a process of the user ``nobody`` reads there; None where it may not."""
    told: str | None = _as_nobody(_READ, path=str(path))
    return told


def set_by_nobody(api_url: str, flow_run: object, state: object, login: str | None = None) -> int:
    """The status of the answer to ``nobody``, who sets the state of a flow run."""
    url = f"{api_url}/flow_runs/{flow_run}/set_state"
    return asked_by_nobody(url, {"state": state, "force": True}, login)[0]


def in_the_open(login: str, processes: Iterable[psutil.Process], folder: Path) -> set[Path]:
    """The files below the folder that hold the login's password; it is in no command line."""
    password = login.partition(":")[2]
    for process in processes:
        assert password not in " ".join(process.cmdline())
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert password not in listed.stdout
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and password.encode() in path.read_bytes():
            found.add(path)
    return found
