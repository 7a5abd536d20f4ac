"""Recorded scores: which files are read, and what becomes of missing and impossible numbers."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from asking import asked, evaluation, judge_row, pair_row, rm_row

from assay.core.errors import UserMistake
from assay.evaluate.recorded_scores import recorded

JUDGED = [judge_row("p", "A>B"), judge_row("q", "B>A"), judge_row("r", "A>B")]


def judgments(*scores: float) -> list[dict[str, object]]:
    """As JudgeBench writes them: the answers in their order, then swapped."""
    return [
        {"judgment": {"judge_model": "team/judge", "scores": list(order)}, "decision": "A>B"}
        for order in (scores, scores[::-1])
    ]


def test_output_files_of_judgebench_work_as_they_are(tmp_path: Path) -> None:
    rows = [row | {"judgments": judgments(2.0, 1.0)} for row in JUDGED]
    found = asked(tmp_path, "judgebench", {"outputs.jsonl": rows})
    path = str(tmp_path / "outputs.jsonl")
    scores = recorded("judge", path, "outputs.jsonl", found.items, None)
    made = evaluation(found, scores).models[0]
    assert (made.overall.correct, made.overall.total, made.kind, made.source) == (
        2,
        3,
        "recorded",
        "outputs.jsonl",
    )
    assert scores.published_name == "team/judge"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("wide.csv", "id,first,second\np,2,1\nq,1.5,3e0\nr,0,-1\n"),
        ("long.csv", "id,score\np,2\np,1\nq,1.5\nq,3\nr,0\nr,-1\n"),
        ("wide.tsv", "id\tfirst\tsecond\np\t2\t1\nq\t1.5\t3\nr\t0\t-1\n"),
        (
            "lists.jsonl",
            '{"pair_id": "p", "scores": [2, 1]}\n{"pair_id": "q", "scores": [[1.5], [3]]}\n'
            '{"pair_id": "r", "scores": [0, -1]}\n',
        ),
    ],
)
def test_ids_and_numbers_in_any_file(name: str, content: str, tmp_path: Path) -> None:
    found = asked(tmp_path, "judgebench", {"rows.jsonl": JUDGED})
    path = tmp_path / name
    path.write_text(content)
    made = evaluation(found, recorded("m", str(path), name, found.items, None)).models[0]
    assert (made.overall.correct, made.overall.total) == (3, 3)


def test_output_files_of_rm_bench(tmp_path: Path) -> None:
    rows = [rm_row(8, "one", domain="chat")]
    found = asked(tmp_path, "rm-bench", {"rows.jsonl": rows})
    path = tmp_path / "out.json"
    path.write_text(json.dumps([rows[0] | {"score_chosen": [1, 2, 3], "score_rejected": [0, 2, 4]}]))
    made = evaluation(found, recorded("m", str(path), "out.json", found.items, None)).models[0]
    # 1 > 0; 2 > 0, 2 = 2; 3 > 0, 3 > 2.
    assert (made.overall.correct, made.overall.ties) == (4, 1)


def test_missing_and_impossible_scores_are_counted_and_named(tmp_path: Path) -> None:
    found = asked(tmp_path, "judgebench", {"rows.jsonl": [*JUDGED, judge_row("s", "A>B")]})
    path = tmp_path / "scores.jsonl"
    path.write_text(
        '{"id": "p", "scores": [NaN, 1]}\n{"id": "q", "scores": [1]}\n{"id": "s", "scores": [2, 1]}\n'
        '{"id": "elsewhere", "scores": [2, 1]}\n'
    )
    made = evaluation(found, recorded("m", str(path), "scores.jsonl", found.items, None))
    (model,) = made.models
    assert model.rows.unscored == {"not_a_number": 1, "not_recorded": 2}
    assert model.rows.used == model.overall.total == 1
    named = "\n".join(model.rows.examples)
    assert "rows.jsonl:1: not_a_number: p" in named
    assert "rows.jsonl:2: not_recorded: q has 1 scores for 2 answers" in named
    assert "rows.jsonl:3: not_recorded: r" in named
    assert model.notes == ("1 id of the recorded scores are of no row that was read.",)
    assert not made.complete
    assert "3 rows without a score of m" in made.why_incomplete


def test_nan_in_a_csv_is_no_score(tmp_path: Path) -> None:
    found = asked(tmp_path, "judgebench", {"rows.jsonl": JUDGED[:1]})
    path = tmp_path / "scores.csv"
    path.write_text("id,a,b\np,nan,1\n")
    assert recorded("m", str(path), "s", found.items, None).why_unscored(found.items[0]) == "not_a_number: p"


@pytest.mark.slow
def test_scores_of_a_run_are_found_by_their_place(tmp_path: Path) -> None:
    found = asked(tmp_path, "rewardbench", {"rows.jsonl": [pair_row(n, "hep-go", f"x{n}") for n in (1, 2)]})
    path = tmp_path / "scores.parquet"
    pl.DataFrame(
        {
            # As a run saw the same file that lay elsewhere.
            "file": ["other/rows.jsonl"] * 4,
            "line": [1, 1, 2, 2],
            "part": [0, 1, 0, 1],
            "turn": [0, 0, 0, 0],
            "helpfulness": [3.0, 1.0, 1.0, None],
            "verbosity": [1.0, 3.0, 1.0, None],
            "reason": [None, None, None, "not_finite: the model gave nan"],
            "tokens_cut": [0, 0, 0, 0],
        }
    ).write_parquet(path)
    made = evaluation(found, recorded("m", str(path), "scores.parquet", found.items, None)).models[0]
    assert (made.overall.correct, made.overall.total, made.by) == (1, 1, "helpfulness")
    assert made.rows.unscored == {"not_finite": 1}
    by_verbosity = recorded("m", str(path), "scores.parquet", found.items, "verbosity")
    assert evaluation(found, by_verbosity).models[0].overall.correct == 0
    with pytest.raises(UserMistake, match=r"--by verbositi: scores\.parquet does not rate it; did you mean"):
        recorded("m", str(path), "scores.parquet", found.items, "verbositi")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"id": "elsewhere", "scores": [1, 2]}\n',
            "holds no score of these rows. It has ids such as elsewhere",
        ),
        ('{"name": "p", "scores": [1, 2]}\n', "row 1 has no id"),
        ('{"id": "p", "scores": [1,\n', "scores.jsonl:1: not JSON"),
        ("[1, 2]\n[3, 4]\n", "is no object of an id and its scores"),
    ],
)
def test_a_file_of_no_use_is_refused(content: str, words: str, tmp_path: Path) -> None:
    found = asked(tmp_path, "judgebench", {"rows.jsonl": JUDGED})
    path = tmp_path / "scores.jsonl"
    path.write_text(content)
    with pytest.raises(UserMistake) as refused:
        recorded("m", str(path), "scores.jsonl", found.items, None)
    assert words in str(refused.value)


def test_ids_that_stand_for_several_rows_are_refused(tmp_path: Path) -> None:
    rows = [rm_row(1, "one", domain="chat"), rm_row(1, "two", domain="math")]
    found = asked(tmp_path, "rm-bench", {"rows.jsonl": rows})
    path = tmp_path / "scores.jsonl"
    path.write_text('{"id": 1, "score_chosen": [1, 2, 3], "score_rejected": [0, 0, 0]}\n')
    with pytest.raises(UserMistake, match="1 id of its rows stand for several rows"):
        recorded("m", str(path), "scores.jsonl", found.items, None)
