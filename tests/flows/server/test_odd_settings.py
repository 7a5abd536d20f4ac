"""Settings of Prefect that have another form than Prefect wants are a user's mistake, named in a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from places import ROOT

#: Values of every kind that TOML has.
VALUES = (
    "3",
    "0",
    "-1.5",
    "true",
    "1979-05-27",
    "'prefect'",
    "''",
    "'.'",
    "[]",
    "[1]",
    "[{a = 1}]",
    "{a = 1}",
)
#: Where a table is wanted; where a text or a path is; and in the tables of other tools.
TABLES = ("tool", "tool.prefect", "tool.prefect.api", "tool.prefect.server.api", "tool.prefect.logging")
FIELDS = (
    "tool.prefect.api.url",
    "tool.prefect.profiles_path",
    "tool.prefect.home",
    "tool.prefect.logging.level",
)
OTHERS = ("tool.assay", "tool.assay.prefect", "project", "project.dependencies", "prefect")


#: Reads cases from its input, each a file's name, its content and variables. Writes of each whether the file
#: may name a server, and what is said of Prefect's settings: None where Prefect reads them. It is a program,
#: for threads of Prefect in a process of tests would read these settings too.
ASKER = """
import json, os, sys, tempfile
from pathlib import Path

import prefect.context
from assay.core.errors import UserMistake
from flows.server.connection import may_name_a_server, prefects_settings

answers = []
for name, content, variables in json.load(sys.stdin):
    # The command's folder and the user's home. Prefect reads its settings anew.
    folder = tempfile.mkdtemp(dir=sys.argv[1])
    os.chdir(folder)
    os.environ["HOME"] = folder
    os.environ.update(variables)
    Path(name).write_bytes(content.encode("latin-1"))
    prefect.context.GLOBAL_SETTINGS_CONTEXT = None
    may = may_name_a_server()
    try:
        prefects_settings()
    except UserMistake as mistake:
        answers.append([may, str(mistake)])
    else:
        answers.append([may, None])
    for variable in variables:
        del os.environ[variable]
print(json.dumps(answers))
"""


class Case(NamedTuple):
    name: str
    content: str
    variables: Mapping[str, str] = {}


class Answer(NamedTuple):
    may_name_a_server: bool
    said: str | None


def environment(**variables: str) -> dict[str, str]:
    """This process's variables without those of Prefect, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("PREFECT_")}
    return kept | {"PYTHONPATH": str(ROOT)} | variables


def answers(cases: Sequence[Case], folder: Path) -> list[Answer]:
    asked = subprocess.run(
        [sys.executable, "-c", ASKER, str(folder)],
        input=json.dumps(cases),
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0, asked.stderr
    found = [Answer(*answer) for answer in json.loads(asked.stdout)]
    for said in [answer.said for answer in found if answer.said is not None]:
        assert said.startswith("Prefect cannot read its settings (")
        assert "\n" not in said
        assert "Traceback" not in said
    assert len(found) == len(cases)
    return found


@pytest.mark.slow
def test_any_value_in_any_place_of_a_project_is_read_by_prefect_or_named_in_a_line(tmp_path: Path) -> None:
    places = [(key, value) for key in (*TABLES, *FIELDS) for value in VALUES]
    cases = [Case("pyproject.toml", f"# prefect\n{key} = {value}\n") for key, value in places]
    for (key, value), answer in zip(places, answers(cases, tmp_path), strict=True):
        # Where tools are no table of tables, none is Prefect's. All else may name a server.
        assert answer.may_name_a_server or key == "tool"
        if key in TABLES[:2] and not value.startswith("{"):
            assert answer.said is not None
        if answer.said is not None:
            assert "pyproject.toml" in answer.said


@pytest.mark.slow
def test_any_value_of_other_tools_is_no_business_of_a_run(tmp_path: Path) -> None:
    cases = [Case("pyproject.toml", f"# prefect\n{key} = {value}\n") for key in OTHERS for value in VALUES]
    assert answers(cases, tmp_path) == [(False, None)] * len(cases)


@pytest.mark.slow
def test_files_that_prefect_cannot_read_are_named_in_a_line(tmp_path: Path) -> None:
    cases = [
        Case("pyproject.toml", "[tool.prefect\n"),
        Case("pyproject.toml", "# prefect \xff\n"),
        Case("prefect.toml", "api = 3\n"),
        Case("prefect.toml", "api = [{url = 'x'}]\n"),
        Case("prefect.toml", "\x00"),
        Case(".env", "PREFECT_CLIENT_MAX_RETRIES=many\n"),
    ]
    for case, answer in zip(cases, answers(cases, tmp_path), strict=True):
        assert answer.may_name_a_server
        assert answer.said is not None
        assert case.name in answer.said


@pytest.mark.slow
def test_a_line_on_settings_holds_no_login(tmp_path: Path) -> None:
    variables = {
        "PREFECT_API_URL": "['http://somebody:canary@s/api']",
        "PREFECT_API_REQUEST_TIMEOUT": "canary",
    }
    ((_, said),) = answers([Case("notes.txt", "", variables)], tmp_path)
    assert said is not None
    assert "request_timeout" in said
    assert "canary" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "variables"),
    [
        ("prefect.toml", "[api]\nauth_string = ['somebody:canary']\n", {}),
        ("prefect.toml", "[api]\nkey = ['canary']\n", {}),
        ("prefect.toml", "[client]\ncustom_headers = ['canary']\n", {}),
        ("prefect.toml", "[server.database]\nconnection_url = ['canary']\n", {}),
        ("notes.txt", "", {"PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS": "canary"}),
        ("notes.txt", "", {"PREFECT_CLIENT_RETRY_EXTRA_CODES": "9999canary"}),
        ("notes.txt", "", {"PREFECT_HOME": "~nobody-of-this-name"}),
        ("pyproject.toml", "# prefect\na = " + "[" * 5000, {}),
    ],
    ids=["auth", "key", "headers", "database", "delay", "codes", "home", "nested"],
)
@pytest.mark.parametrize(
    "command",
    ["flows.curate --input chats.jsonl --output out", "deployments.worker cpu"],
    ids=["run", "worker"],
)
def test_a_command_prints_one_line_and_no_value(
    command: str, name: str, content: str, variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    (tmp_path / "chats.jsonl").write_text('{"prompt": "Why?", "response": "So."}\n')
    kept = environment(HOME=str(tmp_path), ASSAY_HOME=str(tmp_path / "home"), **variables)
    if command.startswith("deployments"):
        kept["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    ended = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=tmp_path, env=kept, capture_output=True, text=True
    )
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: Prefect cannot read its settings (")
    assert "canary" not in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name", "content"),
    [
        ("flows.curate --input chats.jsonl --output out", "pyproject.toml", "tool = 3\n"),
        (
            "flows.curate --input chats.jsonl --output out",
            "~/.prefect/profiles.toml",
            "profiles.ephemeral = 3\n",
        ),
        ("flows.curate --input chats.jsonl --output out --deployment cpu", "prefect.toml", "api = 3\n"),
        ("deployments.register", "pyproject.toml", "tool = 3\n"),
        ("deployments.serve", "pyproject.toml", "tool = 3\n"),
    ],
)
def test_a_command_ends_with_that_line_and_exit_code_2(
    command: str, name: str, content: str, tmp_path: Path
) -> None:
    path = tmp_path / name.removeprefix("~/")
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"# prefect api\n{content}")
    (tmp_path / "chats.jsonl").write_text('{"prompt": "Why?", "response": "So."}\n')
    kept = environment(HOME=str(tmp_path), ASSAY_HOME=str(tmp_path / "home"))
    if command == "deployments.register":
        kept["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    ended = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=tmp_path, env=kept, capture_output=True, text=True
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: Prefect cannot read its settings (")
    assert f"They are in {name}, variables" in last
