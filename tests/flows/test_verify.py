"""``python -m flows.verify``: what it prints, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from assay.verification import Check
from flows import verify


@pytest.fixture
def folder(tmp_path: Path, assay_home: Path) -> Path:
    return tiny.reward_model(tmp_path / "model", max_tokens=4096)


def test_record_and_check_go_together_and_print_plain_lines(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = str(tmp_path / "golden.json")
    assert verify.main([str(folder), "--record", golden]) == 0
    assert f"recorded: 14 turns in {golden}" in capsys.readouterr().out
    assert verify.main([str(folder), "--check", golden]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "-    fingerprint: the recorded one"
    assert lines[2].startswith("pass recorded scores: ")
    assert lines[-1] == "all checks passed"


def test_scores_that_differ_from_the_recorded_exit_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = str(tmp_path / "golden.json")
    verify.main([str(folder), "--record", golden])
    other = tiny.reward_model(tmp_path / "other", max_tokens=4096, seed=7)
    assert verify.main([str(other), "--check", golden]) == 1
    out = capsys.readouterr().out
    assert "FAIL recorded scores: " in out
    assert out.endswith("failed: recorded scores\n")


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
    assert verify.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_the_table_shows_what_failed_and_obeys_no_markup() -> None:
    table = verify.checks_table("m", [Check("a", True, "0"), Check("[red]b", False, "\x1b[31m1", "0.1")])
    assert list(table.columns[0].cells) == ["a", "[red]b"]
    assert list(table.columns[3].cells) == ["pass", "FAIL"]
