"""The tables: readable at 80 columns, and text from data can neither be markup nor hide what is missing."""

from __future__ import annotations

import io
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
    rm_row,
)
from rich.console import Console

from assay.evaluate.evaluation import Evaluation
from assay.evaluate.tables import evaluation_markdown, evaluation_table, figure_rows, sections


def shown(made: Evaluation, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(evaluation_table(made))
    return out.getvalue()


@pytest.mark.parametrize("benchmark", ALL_ROWS)
def test_no_figure_is_cut_at_80_columns(benchmark: str, tmp_path: Path) -> None:
    found = asked(tmp_path, benchmark, {"rows.jsonl": ALL_ROWS[benchmark]})
    models = [given(found, by_text(name), name) for name in ("a", "Qwen-2.5-Nemotron-32B-Reward")]
    made = evaluation(found, *models, starter=models[0])
    text = shown(made)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    words = set(text.replace("(", " ").replace(")", " ").split())
    for section in sections(made):
        for row in section.rows:
            # Names are folded where they must be; figures stand whole.
            assert {part.strip("()") for cell in row[1:] for part in cell.split()} <= words, row


def test_labels_are_shown_whole_too(tmp_path: Path) -> None:
    found = helpsteer(tmp_path)
    made = evaluation(found)
    text = shown(replace(made, models=(rated(found, RATINGS_BY_A_MODEL),)))
    assert "helpfulness >= 2.5" in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_table_says_that_rows_are_missing(tmp_path: Path) -> None:
    rows = [rm_row("a", "one", domain="chat"), rm_row("b", "two", domain="math")]
    found = asked(tmp_path, "rm-bench", {"rows.jsonl": rows})
    made = evaluation(found, given(found, lambda item, answer: answer.worth))
    titles = [section.title for section in sections(made)]
    assert len(titles) >= 3
    assert all("NOT COMPLETE: 2 of 1,327 rows" in title for title in titles)
    assert "Not complete: 2 of the 1,327 rows of RM-Bench are there." in shown(made)
    assert "NOT COMPLETE" in evaluation_markdown(made)


def test_text_from_data_is_neither_markup_nor_a_command(tmp_path: Path) -> None:
    name = "[red]a|b\x1b[31m<b>"
    found = asked(tmp_path, "judgebench", {"rows.jsonl": [judge_row("p", "A>B")]})
    made = evaluation(found, given(found, lambda item, answer: answer.worth, name))
    text = shown(made, width=200)
    assert "[red]a|b" in text
    assert "\x1b" not in text
    markdown = evaluation_markdown(made)
    assert "<b>" not in markdown
    assert "a\\|b" in markdown
    assert all("\x1b" not in value for row in figure_rows(made) for value in row.values())


def test_counts_and_rules_on_ties_stand_beside_the_figures(tmp_path: Path) -> None:
    rows = [judge_row("p", "A>B"), judge_row("q", "B>A")]
    found = asked(tmp_path, "judgebench", {"rows.jsonl": rows})
    text = shown(evaluation(found, given(found, in_order(1.0, 1.0))))
    assert "A>B where A scores strictly higher, else B>A: a tie counts for B." in " ".join(text.split())
    assert (
        "With each tie lost 0.0, as half a point 50.0, left out –; by the benchmark's own rule 50.0."
        in " ".join(text.split())
    )
    (overall, *_) = figure_rows(evaluation(found, given(found, in_order(1.0, 1.0))))
    assert (overall["right, %"], overall["counts"], overall["ties"]) == ("50.0", "1/2", "2")


def test_the_starter_has_a_column_in_prefects_table_where_it_was_asked_too(tmp_path: Path) -> None:
    found = asked(tmp_path, "judgebench", {"rows.jsonl": [judge_row("p", "A>B"), judge_row("q", "B>A")]})
    model = given(found, in_order(1.0, 0.0))
    (alone, *_) = figure_rows(evaluation(found, model))
    assert "starter, %" not in alone
    (beside, *_) = figure_rows(evaluation(found, model, starter=given(found, in_order(0.0, 1.0), "starter")))
    assert beside["starter, %"] == "50.0"
    assert {*beside} - {*alone} == {"starter, %"}
