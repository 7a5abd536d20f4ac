"""``python -m flows.evaluate``: whole runs with a model of no weights, and its exit codes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
from asking import asked, evaluation, given, in_order, judge_row
from curate_runs import Ran, in_this_process

from assay.core.digests import digest_of_bytes
from assay.score import ways
from assay.storage.manifests import Shortfall
from flows.command import console
from flows.command.evaluate import COMMAND
from flows.command.launch import launch
from flows.command.main import run
from flows.evaluate import prepare

Run = Callable[..., Ran]


@pytest.fixture
def evaluating(
    prefect_api: str,
    assay_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """The command on the tests' Prefect server. A model is a fake of its name; its scores are of the text."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setenv("ASSAY_SERVER_ANSWER_SECONDS", "60")
    monkeypatch.setattr(ways, "workers_for", in_this_process)

    def found(name: str, *known: object, **options: object) -> Any:
        return fakes.spec(tmp_path / name, digest_of_bytes(str(tmp_path).encode(), name.encode()))

    monkeypatch.setattr(prepare, "find_model", found)

    def evaluate(*arguments: object) -> Ran:
        watched = console.Console()
        monkeypatch.setattr("flows.command.launch.Console", lambda: watched)
        code = launch(COMMAND, [*map(str, arguments), "--output", str(tmp_path / "out")])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err, tmp_path / "out", watched)

    return evaluate


def pairs(folder: Path, *, unscorable: bool = False) -> Path:
    rows = [
        {"id": f"r{n}", "prompt": f"Q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(6)
    ]
    if unscorable:
        rows.append({"id": "u", "prompt": "Q", "chosen": fakes.UNSCORABLE, "rejected": "bad"})
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + "no JSON\n")
    return path


@pytest.mark.slow
def test_an_evaluation_accounts_for_every_row_and_scores_nothing_twice(
    evaluating: Run, tmp_path: Path
) -> None:
    given = ("--benchmark", "preferences", "--input", pairs(tmp_path, unscorable=True))
    models = ("--model", "a=one", "b=two")
    first = evaluating(*given, *models)
    assert first.code == 0, first.err
    content = json.loads((first.output / "evaluation.json").read_bytes())
    assert content["rows"] == {"read": 8, "used": 7, "dropped": 0, "quarantined": 1}
    assert content["complete"] is False
    assert [model["name"] for model in content["models"]] == ["a", "b"]
    assert [model["rows"] for model in content["models"]] == [
        {
            "used": 6,
            "unscored": {"not_finite": 1},
            "examples": [f"{tmp_path / 'pairs.jsonl'}:7: not_finite: the model gave nan"],
        }
    ] * 2
    assert content["models"][0]["overall"]["total"] == 6
    # The fakes give equal texts equal scores, whatever their names.
    assert content["versus"][0]["overall"]["difference"] == 0
    assert content["ensemble"]["overall"]["accuracy"] == content["models"][0]["overall"]["accuracy"]
    # The third model is the starter, as a baseline.
    assert content["models"][0]["starter_baseline"]["total"] == 6
    for name in ("one", "two", "starter"):
        assert len(fakes.calls(tmp_path / name)) == 14
    artifacts = {key.partition("-")[0]: one for key, one in first.artifacts().items()}
    assert "NOT COMPLETE" in artifacts["evaluation"].data
    assert len(json.loads(artifacts["figures"].data)) == 3
    assert artifacts["accuracies"].data.startswith("data:image/svg+xml;base64,")
    right = content["models"][0]["overall"]["correct"]
    assert f"({right}/6; 95%" in (first.output / "report.html").read_text()
    again = evaluating(*given, *models)
    assert again.code == 0, again.err
    assert again.err.count(" 0 scored by this run") == 3
    for name in ("one", "two", "starter"):
        assert len(fakes.calls(tmp_path / name)) == 14
    repeated = json.loads((again.output / "evaluation.json").read_bytes())
    assert {**repeated, "seconds": 0} == {**content, "seconds": 0}


@pytest.mark.slow
def test_recorded_scores_need_no_model_and_a_cut_file_exits_1(evaluating: Run, tmp_path: Path) -> None:
    rows = [
        judge_row(f"p{n}", "A>B") | {"judgments": [{"judgment": {"judge_model": "j", "scores": [n, 1]}}]}
        for n in range(40)
    ]
    packed = gzip.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode())
    whole, cut = tmp_path / "outputs.jsonl.gz", tmp_path / "cut.jsonl.gz"
    whole.write_bytes(packed)
    cut.write_bytes(packed[: len(packed) * 2 // 3])
    found = evaluating("--benchmark", "judgebench", "--input", whole, "--scores", f"j={whole}")
    assert found.code == 0, found.err
    content = json.loads((found.output / "evaluation.json").read_bytes())
    assert (content["models"][0]["overall"]["correct"], content["models"][0]["overall"]["ties"]) == (38, 1)
    assert content["why_incomplete"] == ["40 of the 350 rows of JudgeBench are there"]
    short = evaluating("--benchmark", "judgebench", "--input", cut, "--scores", f"j={whole}")
    assert short.code == 1
    assert "is cut short" in short.err
    content = json.loads((short.output / "evaluation.json").read_bytes())
    assert 0 < content["rows"]["used"] < 40
    other = evaluating("--benchmark", "rm-bench", "--input", whole, "--scores", f"j={whole}")
    assert other.code == 2
    assert "Use --benchmark judgebench" in other.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--benchmark", "rm-bench", "--input", "no-such-file.jsonl", "--model", "m"],
            "there is no such file",
        ),
        (["--benchmark", "rm-bench", "--input", "FILE"], "--model is required"),
        (["--benchmark", "rm-bench", "--input", "FILE", "--scores", "nowhere.csv"], "cannot be read"),
        (["--benchmark", "rm-bench", "--input", "FILE", "--model", "startr"], "did you mean 'starter'"),
        (
            ["--benchmark", "rm-bench", "--input", "FILE", "--model", "starter", "--by", "charm"],
            "--by charm: starter does not rate it",
        ),
        (
            ["--benchmark", "rm-bench", "--input", "FILE", "--model", "starter", "--output", "FILE"],
            "is a file",
        ),
    ],
)
def test_mistakes_exit_2_before_any_work(
    arguments: list[str],
    words: str,
    assay_home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = pairs(tmp_path)
    given = [str(file) if one == "FILE" else one for one in arguments]
    if "--output" not in given:
        given += ["--output", str(tmp_path / "out")]
    assert launch(COMMAND, given) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_the_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "  evaluate  measure how well" in capsys.readouterr().out


def test_a_deployed_run_ends_in_a_state_that_gives_the_figures(tmp_path: Path) -> None:
    from flows.evaluate.flow import Evaluated, _end_of

    found = asked(tmp_path, "judgebench", {"rows.jsonl": [judge_row("p", "A>B"), judge_row("q", "B>A")]})
    made = evaluation(found, given(found, in_order(1.0, 0.0), "judge"))
    state = _end_of(Evaluated(made))
    assert state.is_completed()
    assert state.message == (
        "JudgeBench, 2 rows: judge 50.0%; not complete: 2 of the 350 rows of JudgeBench are there"
    )
    cut = replace(made, shortfalls=(Shortfall("rows.jsonl", "is cut short", 1),))
    ended = _end_of(Evaluated(cut))
    assert (ended.name, Evaluated(cut).complete) == ("Completed", False)
    assert (ended.message or "").startswith("Incomplete: JudgeBench, 2 rows: judge 50.0%")
    nothing = evaluation(found, given(found, lambda item, answer: None, "judge"))
    failed = _end_of(Evaluated(nothing))
    assert failed.is_failed()
    assert failed.message == "No row could be used: no_score (2 of 2)."
