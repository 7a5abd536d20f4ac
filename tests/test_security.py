"""What docs/security.md promises is shown by tests that exist; and the rules that no one module keeps."""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT
from planted import Bomb
from pydantic import BaseModel
from stages import convert, take_inventory

from assay.config.options import RunOptions
from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions
from assay.core.errors import AssayError, UserMistake
from assay.storage.home import Home
from deployments import serve
from flows.command.curate import COMMAND
from flows.command.options import parse

PAGE = (ROOT / "docs/security.md").read_text()
RULES = range(1, 16)


def rows() -> dict[str, list[str]]:
    """The table's cells, by the rule's number."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines()]
    return {cells[0]: cells[1:] for cells in found if re.fullmatch(r"S\d+", cells[0])}


def names_of_tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_rule_has_a_row_and_every_row_a_test() -> None:
    assert list(rows()) == [f"S{number}" for number in RULES]
    for rule, cells in rows().items():
        assert len(cells) == 3, rule
        assert re.search(r"`\S+\.py::test_\w+`", cells[2]), rule


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(\S+\.py)::(\w+)`", PAGE)
    assert named
    for file, test in named:
        path = ROOT / "tests" / file
        assert path.is_file(), file
        assert test in names_of_tests(path), f"{file}::{test}"


# S3: what only an operator may set is no option of a run, in whatever way that is started.


@pytest.mark.parametrize("options", [RunOptions, VerifyOptions])
def test_no_option_of_a_run_is_an_operators_setting(options: type[BaseModel]) -> None:
    operators = set(Settings.model_fields)
    assert "trust_remote_code" in operators
    assert not operators & set(options.model_fields)
    words = {word for name in options.model_fields for word in name.split("_")}
    assert not words & {"trust", "code", "secret", "key", "password", "host", "port", "url", "address"}


def test_trust_that_a_run_asks_for_is_refused_on_every_way_in(tmp_path: Path) -> None:
    asked = {"input": ["chats.jsonl"], "output": "out", "trust_remote_code": True}
    with pytest.raises(ValueError, match="trust_remote_code"):
        RunOptions.model_validate(asked)  # as a deployment's form is
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(asked))
    for arguments in (
        ["--config", str(file)],
        ["--input", "chats.jsonl", "--output", "out", "--trust-remote-code"],
    ):
        with pytest.raises(UserMistake, match="trust"):
            parse(
                RunOptions,
                arguments,
                program="assay curate",
                summary=COMMAND.summary,
                examples=COMMAND.examples,
            )


def test_who_starts_a_deployment_chooses_no_environment_and_no_command() -> None:
    template = json.loads((ROOT / "deployments/work_pool.json").read_bytes())
    assert template["variables"]["properties"] == {}
    assert "{{" not in json.dumps(template["job_configuration"])


# S4 and S10: nothing in here could run what it reads.

#: What turns text or bytes into something that runs, by the name it is called by.
RUNNING = frozenset(
    {
        *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
        *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads"),
        *("marshal.load", "marshal.loads", "shelve.open", "joblib.load", "dill.load", "dill.loads"),
        *("torch.load", "numpy.load", "np.load", "pl.sql", "pl.sql_expr", "pl.SQLContext"),
        *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    }
)


def called(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.slow
def test_no_module_calls_what_runs_text_or_loads_a_pickle() -> None:
    modules = [
        path
        for package in ("assay", "tasks", "flows", "deployments")
        for path in (ROOT / package).rglob("*.py")
    ]
    assert len(modules) > 80
    for path in modules:
        for name, call in called(path):
            assert name not in RUNNING, f"{path}:{call.lineno}"
            assert not name.endswith((".sql", ".sql_expr", ".map_elements")), f"{path}:{call.lineno}"
            shell = next(
                (word.value for word in call.keywords if word.arg in ("shell", "allow_pickle")), None
            )
            assert shell is None, f"{path}:{call.lineno}"


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["chats.pkl", "chats.pt", "chats.npy", "chats.jsonl", "chats.json", "chats.parquet", "chats.jsonl.gz"],
)
def test_a_pickle_among_the_inputs_is_never_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    try:
        kept = convert(take_inventory([str(tmp_path / name)]), home=Home(tmp_path / "home")).counts.ok
    except AssayError:
        kept = 0
    assert kept == 0
    assert not (tmp_path / "ran").exists()


# S5: nothing that is started here can be told to listen elsewhere.


@pytest.mark.parametrize("option", ["--host", "--interface", "--address"])
def test_make_serve_offers_no_address_to_listen_on(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.main([option, "0.0.0.0"])
    assert "unrecognized arguments" in capsys.readouterr().err
