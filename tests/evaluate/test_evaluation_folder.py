"""The folder of an evaluation: whole files, and nobody else's files replaced."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from asking import Asked, asked, evaluation, given, judge_row

from assay.core.digests import digest_of_file
from assay.core.errors import OutputRefused
from assay.evaluate.evaluation import Evaluation
from assay.evaluate.evaluation_folder import EvaluationFolder
from assay.evaluate.page import shown
from assay.export.folder import OutputFolder


def judged(folder: Path) -> tuple[Asked, Evaluation]:
    broken = b'{"pair_id": \n'
    rows = json.dumps(judge_row("p", "A>B")).encode() + b"\n" + broken
    found = asked(folder, "judgebench", {"rows.jsonl": rows})
    return found, evaluation(found, given(found, lambda item, answer: answer.worth))


def written(folder: Path) -> tuple[Path, Evaluation]:
    found, made = judged(folder)
    output = EvaluationFolder(folder / "out")
    output.check()
    with output.held():
        whole = output.write(made, found.gathered, found.home)
    return folder / "out", whole


def test_the_file_holds_what_the_evaluation_says(tmp_path: Path) -> None:
    out, whole = written(tmp_path)
    content = json.loads((out / "evaluation.json").read_bytes())
    assert msgspec.convert(content, Evaluation) == whole
    assert content["benchmark"] == "judgebench"
    assert content["rows"] == {"read": 2, "used": 1, "dropped": 0, "quarantined": 1}
    assert content["complete"] is False
    (model,) = content["models"]
    for figure in (model["overall"], model["groups"]["knowledge"], model["length_baseline"]):
        assert figure.keys() >= {"accuracy", "correct", "total", "ties", "interval"}
    assert (model["overall"]["correct"], model["overall"]["total"]) == (1, 1)
    assert content["files"] == {
        name: digest_of_file(out / name) for name in ("evaluation.md", "quarantine.jsonl")
    }


def test_a_broken_row_is_kept_with_its_bytes(tmp_path: Path) -> None:
    out, _ = written(tmp_path)
    (line,) = map(json.loads, (out / "quarantine.jsonl").read_bytes().splitlines())
    assert (line["line"], line["original"]) == (2, '{"pair_id": ')
    assert line["reason"].startswith("not_json")


def test_an_evaluation_replaces_an_evaluation_and_nothing_else(tmp_path: Path) -> None:
    out, _ = written(tmp_path)
    EvaluationFolder(out).check()
    # A run of curate does not replace it.
    with pytest.raises(OutputRefused, match="not ours to replace"):
        OutputFolder(out).check()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputRefused, match=r"holds what no evaluation wrote \(notes\.txt\)"):
        EvaluationFolder(out).check()
    (out / "notes.txt").unlink()
    (out / "evaluation.json").write_text('{"mine": 1}')
    with pytest.raises(OutputRefused, match="is not one of Assay"):
        EvaluationFolder(out).check()
    a_file = tmp_path / "file"
    a_file.write_text("")
    with pytest.raises(OutputRefused, match="is a file"):
        EvaluationFolder(a_file).check()


def test_the_page_lies_beside_the_results_and_is_none_of_them(tmp_path: Path) -> None:
    out, without = written(tmp_path)
    assert not (out / "report.html").exists()
    found, made = judged(tmp_path)
    page = shown(made, "assay evaluate").page
    output = EvaluationFolder(out)
    with output.held():
        assert output.write(made, found.gathered, found.home, page) == without
    assert (out / "report.html").read_bytes() == page
    EvaluationFolder(out).check()
    # An evaluation without a page leaves none that shows other figures.
    with output.held():
        output.write(made, found.gathered, found.home)
    assert not (out / "report.html").exists()
    (out / "report.html").write_text("<html>mine")
    with pytest.raises(OutputRefused, match=r"holds a report\.html that Assay did not make"):
        EvaluationFolder(out).check()


def test_two_evaluations_do_not_write_one_folder_at_once(tmp_path: Path) -> None:
    output = EvaluationFolder(tmp_path / "out")
    with (
        output.held(),
        pytest.raises(OutputRefused, match="another evaluation writes there"),
        EvaluationFolder(tmp_path / "out").held(),
    ):
        pass
    with output.held():
        pass
