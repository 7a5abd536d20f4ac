"""``python -m flows.verify``: what it prints, and its exit codes."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions
from assay.core.errors import UserMistake
from assay.storage.run_manifest import RUN_MANIFEST_KEY
from assay.verify.checks import Check
from assay.verify.table import checks_table
from assay.workers.cluster import ClusterOptions
from flows.command.console import Console
from flows.command.verify import command
from flows.verify import checked


@pytest.fixture
def folder(tmp_path: Path, assay_home: Path) -> Path:
    return tiny.reward_model(tmp_path / "model", max_tokens=4096)


def test_record_and_check_go_together_and_print_plain_lines(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = str(tmp_path / "golden.json")
    assert command([str(folder), "--record", golden]) == 0
    assert f"recorded: 14 turns in {golden}" in capsys.readouterr().out
    assert command([str(folder), "--check", golden]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "-    fingerprint: the recorded one"
    assert lines[2] == "pass weights: the recorded ones"
    assert lines[3].startswith("pass recorded scores: ")
    assert lines[-1] == "all checks passed"


def test_scores_that_differ_from_the_recorded_exit_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = str(tmp_path / "golden.json")
    command([str(folder), "--record", golden])
    other = tiny.reward_model(tmp_path / "other", max_tokens=4096, seed=7)
    assert command([str(other), "--check", golden]) == 1
    out = capsys.readouterr().out
    assert "FAIL recorded scores: " in out
    assert out.endswith("failed: weights; recorded scores\n")


def test_workers_are_those_that_a_run_has(
    folder: Path, assay_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(checked, "verify", lambda spec, **options: asked.append((spec, options)))
    settings = Settings(home=assay_home, gpus_per_model=2, scheduler_address="tcp://127.0.0.1:9")
    given = VerifyOptions(model=str(folder), workers=3)
    checked.checked(given, settings, Console())
    ((spec, options),) = asked
    assert spec.device_map == "auto"
    expected = ClusterOptions(workers=3, gpus_per_model=2, scheduler_address="tcp://127.0.0.1:9")
    assert options["cluster"] == expected


def test_a_wrong_address_of_workers_is_reported_before_the_model_is_loaded(
    folder: Path, assay_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "verify", lambda *_, **__: pytest.fail("verified"))
    settings = Settings(home=assay_home, scheduler_address="localhost")
    with pytest.raises(UserMistake, match="ASSAY_SCHEDULER_ADDRESS is localhost"):
        checked.checked(VerifyOptions(model=str(folder)), settings, Console())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["startr"], "did you mean 'starter'"),
        (["starter", "--record", "a", "--check", "b"], "one at a time"),
        (["starter", "--check", "/nowhere/golden.json"], "cannot be read"),
        ([], "--model"),
    ],
)
def test_mistakes_exit_2_in_a_line(
    arguments: list[str], words: str, assay_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


@pytest.mark.parametrize("option", ["model", "against"])
def test_a_deployed_verification_takes_models_by_name_alone(option: str, tmp_path: Path) -> None:
    listed = tmp_path / "endpoints.yaml"
    listed.write_text(
        "house:\n  kind: vllm-classify\n  url: http://127.0.0.1:9/\n  model: m\n  attributes: [reward]\n"
        "  max_characters: 1000\n"
    )
    settings = Settings(home=tmp_path / "home", endpoints_file=listed)
    given = VerifyOptions.model_validate(
        {"model": "house", option: str(tiny.reward_model(tmp_path / "model"))}
    )
    with pytest.raises(UserMistake, match="takes a model by its name"):
        checked.checked(given, settings, Console(), deployed=True)


def test_a_model_of_the_operators_folders_is_known_by_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASSAY_MODEL_FOLDERS", f"judge={folder}")
    golden = tmp_path / "new" / "deeper" / "golden.json"
    assert command(["judge", "--record", str(golden)]) == 0
    assert json.loads(golden.read_bytes())["model"] == "judge"
    for made in (golden.parent, golden.parent.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700, made


def test_golden_rows_replace_golden_rows_and_nothing_else(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / "golden.json"
    for _ in range(2):
        assert command([str(folder), "--record", str(golden)]) == 0
    other = tmp_path / "labeled.jsonl"
    other.write_text("{}\n")
    assert command([str(folder), "--record", str(other)]) == 2
    assert "exists and holds no golden rows" in capsys.readouterr().err
    assert other.read_text() == "{}\n"
    results = tmp_path / "results"
    results.mkdir()
    (results / "manifest.json").write_text(json.dumps({RUN_MANIFEST_KEY: "0.1.0", "files": {}}))
    for among in (results / "golden.json", results / "sub" / "deeper" / "golden.json"):
        assert command([str(folder), "--record", str(among)]) == 2
        assert "lies in a run's results" in capsys.readouterr().err
    assert [path.name for path in results.iterdir()] == ["manifest.json"]


@pytest.mark.slow
def test_the_command_needs_no_prefect() -> None:
    code = (
        "import sys, runpy; sys.argv = ['verify', 'startr']\n"
        "try: runpy.run_module('flows.verify', run_name='__main__')\n"
        "except SystemExit as left: print(left.code, 'prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 False"


def test_the_table_shows_what_failed_and_obeys_no_markup() -> None:
    table = checks_table("m", [Check("a", True, "0"), Check("[red]b", False, "\x1b[31m1", "0.1")])
    assert list(table.columns[0].cells) == ["a", "[red]b"]
    assert list(table.columns[3].cells) == ["pass", "FAIL"]
