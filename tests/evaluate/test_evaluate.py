"""Models side by side, what is published, what is missing, and what must not change a figure."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking import (
    ALL_ROWS,
    Judge,
    asked,
    by_id,
    by_text,
    evaluation,
    figures,
    given,
    in_order,
    judge_row,
    pair_row,
    rm_row,
)

from assay.evaluate.evaluation import Evaluation
from assay.evaluate.items import AskedItem, ItemAnswer

pytestmark = pytest.mark.slow

PAIRS = [{"id": f"r{n}", "prompt": f"Q{n}", "chosen": "good", "rejected": "bad answer"} for n in range(6)]
#: By row, what two models give the chosen and the rejected answer.
FIRST = {f"r{n}": (1.0, 0.0) if n < 4 else (0.0, 1.0) for n in range(6)}
SECOND = {f"r{n}": (2.0, 1.0) if n in (0, 4) else (1.0, 2.0) for n in range(6)}


def both(folder: Path, first: Judge, second: Judge) -> Evaluation:
    found = asked(folder, "preferences", {"rows.jsonl": PAIRS})
    return evaluation(found, given(found, first, "a"), given(found, second, "b"))


def test_two_models_are_compared_on_the_same_rows(tmp_path: Path) -> None:
    (versus,) = both(tmp_path, by_id(FIRST), by_id(SECOND)).versus
    assert versus.overall.difference == pytest.approx(4 / 6 - 2 / 6)
    # Rows 0 and 5: right and right, wrong and wrong.
    assert (versus.agreement, versus.both_right, versus.both_wrong) == (2 / 6, 1 / 6, 1 / 6)
    assert versus.rows == 6
    low, high = versus.overall.interval or (0.0, 0.0)
    assert -1 <= low < 2 / 6 < high <= 1


def test_a_model_does_not_differ_from_itself(tmp_path: Path) -> None:
    (versus,) = both(tmp_path, by_id(FIRST), lambda item, answer: 3 * FIRST[item.id][answer.place]).versus
    assert (versus.overall.difference, versus.overall.interval, versus.agreement) == (0.0, (0.0, 0.0), 1.0)


def test_rows_that_one_model_cannot_score_are_left_out_of_the_comparison(tmp_path: Path) -> None:
    def holes(item: AskedItem, answer: ItemAnswer) -> float | None:
        return None if item.id == "r0" and answer.place else SECOND[item.id][answer.place]

    made = both(tmp_path, by_id(FIRST), holes)
    assert [model.overall.total for model in made.models] == [6, 5]
    assert made.models[1].rows.unscored == {"no_score": 1}
    assert made.versus[0].rows == 5
    assert made.versus[0].overall.difference == pytest.approx(3 / 5 - 1 / 5)
    assert made.ensemble is not None
    assert made.ensemble.rows.used == 5
    assert not made.complete


def test_an_ensemble_is_the_mean_of_ranks(tmp_path: Path) -> None:
    rows = [{"id": "r", "prompt": "Q", "chosen": ["a"], "rejected": ["b", "c"]}]
    found = asked(tmp_path, "preferences", {"rows.jsonl": rows})
    scores = [(30.0, 20.0, 10.0), (0.1, 0.3, 0.2), (5.0, 5.0, 4.0)]
    made = evaluation(
        found, *(given(found, by_id({"r": one}), name) for name, one in zip("xyz", scores, strict=True))
    )
    # Ranks of a, b, c: 3 2 1, 1 3 2, 2.5 2.5 1. Sums 6.5, 7.5, 4: a is above c alone.
    assert made.ensemble is not None
    assert (made.ensemble.overall.correct, made.ensemble.overall.total) == (1, 2)


def test_the_baselines_stand_beside_each_figure(tmp_path: Path) -> None:
    rows = [pair_row(n, part, f"x{n}") for n, part in enumerate(["hep-go", "hep-go", "donotanswer"])]
    found = asked(tmp_path, "rewardbench", {"rows.jsonl": rows})
    starter = given(found, lambda item, answer: float(answer.place == int(item.group == "hep-go")), "starter")
    model = evaluation(found, given(found, lambda item, answer: answer.worth), starter=starter).models[0]
    # Every chosen text is longer: "good" beside "bad".
    assert model.groups["hep-go"].length_only == model.length_baseline.accuracy == 1.0
    assert (model.groups["hep-go"].starter, model.groups["donotanswer"].starter) == (0.0, 1.0)
    assert model.starter_baseline is not None
    assert model.starter_baseline.accuracy == 0.5
    assert model.doubts.over_length.difference == 0.0
    # Where the shorter answers are the better ones, these are what a model has to beat.
    turned = evaluation(found, given(found, lambda item, answer: -answer.worth)).models[0].doubts
    assert (turned.over_length.difference, turned.shorter_only) == (-1.0, 0.0)


def test_a_model_is_held_against_the_length_that_does_better(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": f"Q{n}", "chosen": "ab", "rejected": "abcd"} for n in range(4)]
    doubts = figures(
        asked(tmp_path, "preferences", {"rows.jsonl": rows}),
        lambda item, answer: answer.worth * (1 if item.id == "r0" else -1),
    ).doubts
    # One of four is right, the shorter answer is in all of them, and the longer one in none.
    assert (doubts.over_length.difference, doubts.shorter_only) == (0.25 - 1.0, 1.0)


def test_doubts_are_counted(tmp_path: Path) -> None:
    rows = [
        {"id": "short", "prompt": "Q1", "chosen": "ab", "rejected": "abcd"},
        {"id": "long", "prompt": "Q2", "chosen": "abcd", "rejected": "ab"},
        {"id": "flat", "prompt": "Q3", "chosen": "abc", "rejected": "abcde"},
    ]
    scores = {"short": (5.0, 1.0), "long": (1.0, 2.0), "flat": (3.0, 3.0)}
    doubts = figures(asked(tmp_path, "preferences", {"rows.jsonl": rows}), by_id(scores)).doubts
    assert (doubts.chosen_shorter.correct, doubts.chosen_shorter.total, doubts.chosen_shorter.ties) == (
        1,
        2,
        1,
    )
    assert doubts.no_spread == pytest.approx(1 / 3)
    # Margins 4, -1 and 0: of those of at least 1 one of two is right, of those of at least 4 the one.
    steps = {step.margin: (step.accuracy, step.pairs, step.share) for step in doubts.margins}
    assert steps == {
        0.0: (pytest.approx(1 / 3), 3, 1.0),
        1.0: (1 / 2, 2, pytest.approx(2 / 3)),
        4.0: (1.0, 1, pytest.approx(1 / 3)),
    }
    # Within prompts the scores less their mean are 2 -2, -0.5 0.5, 0 0 and the lengths -1 1, 1 -1, -1 1.
    # Their ranks less 3.5 are 2.5 -2.5, -1.5 1.5, 0 0 and -1.5 1.5, 1.5 -1.5, -1.5 1.5.
    product = 2.5 * -1.5 - 2.5 * 1.5 - 1.5 * 1.5 + 1.5 * -1.5
    scale = (2 * 2.5**2 + 2 * 1.5**2) * 6 * 1.5**2
    assert doubts.length_correlation_within_prompts == pytest.approx(product / scale**0.5)


def test_a_published_figure_beyond_the_interval_is_called_off(tmp_path: Path) -> None:
    rows = [judge_row(f"p{n}", "A>B", "livebench-math") for n in range(40)]
    found = asked(tmp_path, "judgebench", {"rows.jsonl": rows})
    name = "nvidia/Qwen-2.5-Nemotron-32B-Reward"
    right = evaluation(found, given(found, lambda item, answer: answer.worth, published_name=name))
    lines = {line.figure: line for line in right.models[0].published}
    assert lines["math"].printed == pytest.approx(0.821)
    assert lines["math"].off
    assert "swapped" in lines["math"].note
    assert lines["overall"].printed == pytest.approx(0.703)
    wrong = set(range(8))
    near = given(
        found,
        lambda item, answer: answer.worth * (-1 if int(item.id[1:]) in wrong else 1),
        published_name=name,
    )
    # 32 of 40 are 80.0%, and 82.1% lies within the interval of 40 rows.
    assert not {line.figure: line for line in evaluation(found, near).models[0].published}["math"].off


def test_the_overall_figure_is_the_one_that_the_printed_table_used(tmp_path: Path) -> None:
    rows = [rm_row("a", "one", domain="chat"), *(rm_row(n, f"p{n}", domain="math") for n in range(3))]
    found = asked(tmp_path, "rm-bench", {"rows.jsonl": rows})

    def overall(name: str) -> float:
        scores = given(found, lambda item, answer: answer.worth * (item.group == "math"), published_name=name)
        (line,) = [one for one in evaluation(found, scores).models[0].published if one.figure == "overall"]
        return line.found

    # All of math and nothing of chat: one of two domains, and three of four rows.
    assert overall("Skywork/Skywork-Reward-Llama-3.1-8B") == 1 / 2
    assert overall("Skywork/Skywork-Reward-Llama-3.1-8B-v0.2") == 3 / 4


def shuffled(row: dict[str, Any], own: random.Random) -> dict[str, Any]:
    """The row with its answers in another order, where the order says nothing."""
    if "response_A" in row and own.random() < 0.5:
        label = {"A>B": "B>A", "B>A": "A>B"}[row["label"]]
        return row | {"response_A": row["response_B"], "response_B": row["response_A"], "label": label}
    if "num_correct" in row:
        return row | {name: own.sample(row[name], len(row[name])) for name in ("chosen", "rejected")}
    return row


def without_places(made: Evaluation) -> Any:
    """All figures; not where the better answer stands, which a swap changes."""
    return [
        (
            model.name,
            model.overall,
            model.overall_by_rows,
            model.groups,
            model.groups_by_rows,
            model.by_ties,
            model.labels,
            model.length_baseline,
            replace(model.doubts, positions={}),
        )
        for model in sorted(
            [*made.models, *([made.ensemble] if made.ensemble else [])], key=lambda model: model.name
        )
    ] + [made.versus]


@pytest.mark.parametrize("benchmark", ALL_ROWS)
@pytest.mark.parametrize("seed", range(3))
def test_no_order_changes_a_figure(benchmark: str, seed: int, tmp_path: Path) -> None:
    rows, own = ALL_ROWS[benchmark], random.Random(seed)
    before = asked(tmp_path / "before", benchmark, {"rows.jsonl": rows})
    models = [given(before, by_text(name), name) for name in "abc"]
    permuted = [shuffled(row, own) for row in own.sample(rows, len(rows))]
    after = asked(tmp_path / "after", benchmark, {"rows.jsonl": permuted})
    again = [given(after, by_text(name), name) for name in "abc"]
    own.shuffle(again)
    first, second = evaluation(before, *models), evaluation(after, *again)
    assert without_places(first) == without_places(second)


def test_only_judgebench_counts_a_tie_by_its_place(tmp_path: Path) -> None:
    rows = [judge_row("p", "A>B")]
    swapped = [shuffled(rows[0], random.Random(1))]
    assert swapped[0]["label"] == "B>A"
    found = [
        figures(asked(tmp_path / name, "judgebench", {"rows.jsonl": one}), in_order(0.0, 0.0))
        for name, one in (("a", rows), ("b", swapped))
    ]
    assert [(one.overall.correct, one.overall.ties) for one in found] == [(0, 1), (1, 1)]
    assert [(one.by_ties.lost, one.by_ties.half) for one in found] == [(0.0, 0.5), (0.0, 0.5)]
