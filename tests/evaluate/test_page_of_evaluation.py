"""The page of an evaluation has its figures in sentences, pictures and tables, and texts stay texts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from asking import (
    ALL_ROWS,
    RATINGS_BY_A_MODEL,
    asked,
    by_text,
    evaluation,
    given,
    helpsteer,
    in_order,
    judge_row,
    rated,
)

from assay.evaluate.evaluation import Evaluation
from assay.evaluate.page import EvaluationShown, shown
from assay.evaluate.tables import sections


def page_of(made: Evaluation) -> str:
    return shown(made, "assay evaluate --benchmark x").page.decode()


def words(page: str) -> str:
    """The text of a page, without its markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", page.partition("<body>")[2].partition("<script>")[0]).split())


def pairs(folder: Path, longer_is_better: int, shorter_is_better: int) -> Evaluation:
    """Pairs by a model that takes the longer answer."""
    rows = [
        {"prompt": f"Q{n}", "chosen": "w " * (3 if n < longer_is_better else 1), "rejected": "v v"}
        for n in range(longer_is_better + shorter_is_better)
    ]
    found = asked(folder, "preferences", {"rows.jsonl": rows})
    return evaluation(found, given(found, lambda item, answer: float(answer.characters), "judge"))


@pytest.mark.parametrize("benchmark", ALL_ROWS)
def test_every_cell_of_every_table_is_in_the_page(benchmark: str, tmp_path: Path) -> None:
    found = asked(tmp_path, benchmark, {"rows.jsonl": ALL_ROWS[benchmark]})
    models = [given(found, by_text(name), name) for name in ("a", "b")]
    made = evaluation(found, *models, starter=models[1])
    text = words(page_of(made))
    for section in sections(made):
        assert section.title in text
        for row in section.rows:
            assert " ".join(" ".join(row).split()) in text, row
    assert set(shown(made, "c").pictures) >= {"accuracies a", "accuracies b"}


def test_agreement_with_people_is_said_in_words(tmp_path: Path) -> None:
    found = helpsteer(tmp_path)
    made = evaluation(found)
    made = replace(made, models=(rated(found, RATINGS_BY_A_MODEL),))
    (label, one) = next(iter(made.models[0].labels.items()))
    assert f"rank correlation of {one.spearman:.2f} with the {label} that people gave" in words(page_of(made))


def test_the_sentences_hold_the_model_against_length(tmp_path: Path) -> None:
    # The model takes the longer answer: right in 6 of 8. So is length.
    level = words(page_of(pairs(tmp_path / "level", 6, 2)))
    assert "It is right in 75.0% (6/8; 95%:" in level
    assert "0.0 points more than by always taking the longer answer" in level
    assert "judge cannot be told apart from the length of the answer alone." in level
    assert "Where the better answer is the shorter one it is right in 0.0% (0/2)." in level
    # Here always taking the shorter answer is right in 8 of 8, and the model never is.
    worse = words(page_of(pairs(tmp_path / "worse", 0, 8)))
    assert "100.0 points less than by always taking the shorter answer" in worse
    assert "judge is right less often than the length of the answer alone." in worse


def test_a_page_without_figures_explains_why(tmp_path: Path) -> None:
    found = asked(tmp_path, "judgebench", {"rows.jsonl": [judge_row("p", "A>B")]})
    made = evaluation(found, given(found, lambda item, answer: None))
    text = words(page_of(made))
    assert "No row has its scores, so nothing can be said of it." in text
    assert "No row could be used" in text
    assert shown(made, "c").pictures == {}
    assert shown(made, "c") != EvaluationShown()


def test_texts_of_the_data_are_never_markup(tmp_path: Path) -> None:
    hostile = "</title><script>document.title='canary'</script>\u202e"
    found = asked(tmp_path, "judgebench", {"rows.jsonl": [judge_row("p", "A>B"), judge_row("q", "B>A")]})
    made = evaluation(found, given(found, in_order(1, 0), hostile))
    page = shown(made, f"assay evaluate --model '{hostile}'").page.decode()
    assert page.count("<script>") == 1
    assert "\u202e" not in page
    assert "⟨U+202E⟩" in page
