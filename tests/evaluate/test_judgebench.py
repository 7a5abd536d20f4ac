"""JudgeBench: its rule on ties, its groups, and its recorded outputs to the last digit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import stages
from asking import Asked, asked, by_id, evaluation, figures, judge_row

from assay.evaluate.gather import GATHER, ToGather, items_in
from assay.evaluate.recorded_scores import recorded
from assay.storage.home import Home

DATA = os.environ.get("ASSAY_TEST_DATA")


def test_a_tie_is_decided_for_b_as_the_benchmark_does(tmp_path: Path) -> None:
    labels = {"p": "A>B", "q": "B>A", "r": "A>B", "s": "B>A", "t": "B>A"}
    rows = [judge_row(name, label) for name, label in labels.items()]
    scores = {"p": (1.0, 1.0), "q": (1.0, 1.0), "r": (2.0, 1.0), "s": (2.0, 1.0), "t": (3.0, 3.0)}
    found = figures(asked(tmp_path, "judgebench", {"rows.jsonl": rows}), by_id(scores))
    # q and t by their ties, and r; p's tie is lost, and s is wrong.
    assert (found.overall.correct, found.overall.total, found.overall.ties) == (3, 5, 3)
    assert (found.by_ties.lost, found.by_ties.half, found.by_ties.left_out) == (1 / 5, 2.5 / 5, 1 / 2)


def test_sources_are_grouped_and_positions_are_shown(tmp_path: Path) -> None:
    rows = [
        judge_row("p", "A>B", "mmlu-pro-computer science"),
        judge_row("q", "B>A", "livebench-reasoning"),
        judge_row("r", "A>B", "livebench-math"),
        judge_row("s", "A>B", "livecodebench"),
        judge_row("t", "A>B", "elsewhere"),
        judge_row("u", "A>>B"),
    ]
    found = asked(tmp_path, "judgebench", {"rows.jsonl": rows})
    assert found.gathered.quarantined == {"unknown_label": 1, "unknown_source": 1}
    made = figures(found, lambda item, answer: 1.0 - answer.place)
    assert {name: (one.correct, one.total) for name, one in made.groups.items()} == {
        "knowledge": (1, 1),
        "reasoning": (0, 1),
        "math": (1, 1),
        "coding": (1, 1),
    }
    positions = {name: (one.correct, one.total) for name, one in made.doubts.positions.items()}
    assert positions == {"better answer first": (3, 3), "better answer second": (0, 1)}


def test_how_many_pairs_there_are_depends_on_who_wrote_the_answers(tmp_path: Path) -> None:
    of_claude = {"response_model": "claude-3-5-sonnet-20240620"}
    rows = [judge_row("p", "A>B", **of_claude)]
    found = asked(tmp_path, "judgebench", {"rows.jsonl": rows})
    made = evaluation(found)
    assert made.expected == 270
    assert not made.complete
    assert made.why_incomplete == ("1 of the 270 rows of JudgeBench are there",)
    both = asked(tmp_path / "both", "judgebench", {"rows.jsonl": [*rows, judge_row("q", "B>A")]})
    assert evaluation(both).expected == 620


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="ASSAY_TEST_DATA names no folder of real data")
def test_its_recorded_outputs_give_the_published_figures(tmp_path: Path) -> None:
    path = str(Path(str(DATA)) / "judgebench" / "gpt-4o.GRM-Gemma-2B.outputs.jsonl.gz")
    home = Home(tmp_path / "home")
    converted = stages.convert(stages.take_inventory([path], home=home), home=home)
    gathered = GATHER.run(ToGather(converted, "judgebench"), stages.context(home))
    found = Asked("judgebench", converted, gathered, items_in(gathered, home), home)
    made = evaluation(found, recorded("grm", path, path, found.items, None))
    (model,) = made.models
    assert {name: (one.correct, one.total) for name, one in model.groups.items()} == {
        "knowledge": (97, 154),
        "reasoning": (52, 98),
        "math": (36, 56),
        "coding": (23, 42),
    }
    assert (model.overall.correct, model.overall.total) == (208, 350)
    assert f"{100 * (model.overall.accuracy or 0):.2f}" == "59.43"
    assert made.complete
