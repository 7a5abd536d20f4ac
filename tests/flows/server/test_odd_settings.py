"""Settings of Prefect that have another form than Prefect wants are a user's mistake, named in a line."""

from __future__ import annotations

import os
import subprocess
import sys
from contextvars import Context
from pathlib import Path

import prefect.context
import pytest
from places import ROOT

from assay.core.errors import UserMistake
from flows.server.connection import may_name_a_server, prefects_settings

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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command's folder and the user's home. Prefect reads its settings anew whenever it is asked."""
    for name in [name for name in os.environ if name.upper().startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prefect.context, "GLOBAL_SETTINGS_CONTEXT", None)
    return tmp_path


def a_line_or_settings() -> str | None:
    """What is said of the settings; None where Prefect reads them."""
    try:
        # Outside of what the fixtures of other tests have Prefect's settings be.
        Context().run(prefects_settings)
    except UserMistake as mistake:
        said = str(mistake)
        assert said.startswith("Prefect cannot read its settings (")
        assert "\n" not in said
        assert "Traceback" not in said
        return said
    return None


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("key", [*TABLES, *FIELDS])
def test_any_value_in_any_place_of_a_project_is_read_by_prefect_or_named_in_a_line(
    key: str, value: str, folder: Path
) -> None:
    (folder / "pyproject.toml").write_text(f"# prefect\n{key} = {value}\n")
    # Where tools are no table of tables, none is Prefect's. All else may name a server.
    assert may_name_a_server() or key == "tool"
    said = a_line_or_settings()
    if key in TABLES[:2] and not value.startswith("{"):
        assert said is not None
    if said is not None:
        assert "pyproject.toml" in said


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("key", OTHERS)
def test_any_value_of_other_tools_is_no_business_of_a_run(key: str, value: str, folder: Path) -> None:
    (folder / "pyproject.toml").write_text(f"# prefect\n{key} = {value}\n")
    assert not may_name_a_server()
    assert a_line_or_settings() is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pyproject.toml", b"[tool.prefect\n"),
        ("pyproject.toml", b"# prefect \xff\n"),
        ("prefect.toml", b"api = 3\n"),
        ("prefect.toml", b"api = [{url = 'x'}]\n"),
        ("prefect.toml", b"\x00"),
        (".env", b"PREFECT_CLIENT_MAX_RETRIES=many\n"),
    ],
)
def test_files_that_prefect_cannot_read_are_named_in_a_line(name: str, content: bytes, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    assert may_name_a_server()
    said = a_line_or_settings()
    assert said is not None
    assert name in said


def test_a_line_on_settings_holds_no_login(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "['http://somebody:canary@s/api']")
    monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "canary")
    said = a_line_or_settings()
    assert said is not None
    assert "request_timeout" in said
    assert "canary" not in said


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
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("PREFECT_")}
    kept |= {"HOME": str(tmp_path), "ASSAY_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
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
