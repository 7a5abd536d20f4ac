"""Human labels: pairs within a prompt, correlations over all answers, labels after rounding, and rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import RATINGS_BY_A_MODEL, asked, evaluation, helpsteer, rated

from assay.evaluate.agreement import cut
from assay.evaluate.scores import Scores, place_of


def test_answers_to_one_prompt_are_compared(tmp_path: Path) -> None:
    found = rated(helpsteer(tmp_path), RATINGS_BY_A_MODEL)
    # By helpfulness one pair: aa over b; cccc and ddd were rated alike.
    assert (found.overall.correct, found.overall.total) == (1, 1)
    # By verbosity two: b over aa, which the model has the other way, and cccc over ddd, a tie.
    verbosity = found.groups["verbosity"]
    assert (verbosity.correct, verbosity.total, verbosity.ties) == (0, 2, 1)


def test_correlations_are_over_all_answers(tmp_path: Path) -> None:
    found = rated(helpsteer(tmp_path), RATINGS_BY_A_MODEL).labels["helpfulness"]
    # People's ranks of aa b cccc ddd eeeee: 5 2 3.5 3.5 1; the model's: 4 3 5 1 2. Each less 3.
    people, model = (2, -1, 0.5, 0.5, -2), (1, 0, 2, -2, -1)
    product = sum(a * b for a, b in zip(people, model, strict=True))
    scale = (sum(a * a for a in people) * sum(b * b for b in model)) ** 0.5
    assert found.spearman == pytest.approx(product / scale)
    # Of nine pairs that people rated differently the model has three the other way round: aa below cccc, b
    # above ddd, ddd below eeeee.
    assert found.kendall == pytest.approx((6 - 3) / (9 * 10) ** 0.5)
    # Lengths 2 1 4 3 5 have the ranks 2 1 4 3 5: each less 3.
    lengths = (-1, -2, 1, 0, 2)
    by_length = sum(a * b for a, b in zip(people, lengths, strict=True))
    scale = (sum(a * a for a in people) * sum(b * b for b in lengths)) ** 0.5
    assert found.length_only == pytest.approx(by_length / scale)
    assert (found.column, found.answers) == ("helpfulness", 5)


def test_labels_are_compared_after_rounding(tmp_path: Path) -> None:
    found = rated(helpsteer(tmp_path), RATINGS_BY_A_MODEL).labels["helpfulness"]
    # 3.4 → 3, 2.5 → 2 (half to even), 3.6 → 4, -0.3 → 0, 0.5 → 0 beside people's 4, 1, 3, 3, 0.
    expected = [[0] * 5 for _ in range(5)]
    for people, model in ((4, 3), (1, 2), (3, 4), (3, 0), (0, 0)):
        expected[people][model] += 1
    assert [list(row) for row in found.confusion] == expected
    assert found.agreement == 1 / 5


def test_rules_are_measured_at_each_cut() -> None:
    people, model = [4.0, 1.0, 3.0, 3.0, 0.0], [3.4, 2.5, 3.6, -0.3, 0.5]
    found = cut("helpfulness", 3.0, people, model)
    # People give 3 or more to three answers; the model to two of these, and to no other.
    assert (found.rule, found.precision, found.recall) == ("helpfulness >= 3", 1.0, 2 / 3)
    assert (found.kept, found.holds) == (2, 3)
    less = cut("toxicity", 1.0, people, model)
    # Below 1 people have one answer; the model has two below 1, among them that one.
    assert (less.rule, less.precision, less.recall) == ("toxicity < 1", 1 / 2, 1.0)
    assert cut("helpfulness", 9.0, people, model).precision is None


def test_a_scalar_model_is_compared_with_all_that_people_rated(tmp_path: Path) -> None:
    found = helpsteer(tmp_path)
    values = {place_of(a): {"reward": float(a.characters)} for item in found.items for a in item.answers}
    (model,) = evaluation(found, Scores("m", "m", ("reward",), "reward", values)).models
    assert {name: one.column for name, one in model.labels.items()} == {
        "helpfulness": "reward",
        "verbosity": "reward",
    }
    # Its scale is its own: no labels and no rules are made of it.
    assert all(one.agreement is None and not one.cuts and not one.confusion for one in model.labels.values())
    assert model.labels["helpfulness"].spearman == model.labels["helpfulness"].length_only


def test_an_answer_without_a_score_is_left_out_and_counted(tmp_path: Path) -> None:
    found = rated(
        helpsteer(tmp_path), {name: given for name, given in RATINGS_BY_A_MODEL.items() if name != "ddd"}
    )
    assert found.labels["helpfulness"].answers == 4
    assert found.rows.unscored == {"no_score": 2}
    assert found.overall.total == 1


def test_turns_of_a_tree_count_once_and_rows_without_labels_are_dropped(tmp_path: Path) -> None:
    def message(
        identity: str, parent: str | None, role: str, text: str, **labels: float
    ) -> dict[str, object]:
        row: dict[str, object] = {"message_id": identity, "parent_id": parent, "role": role, "text": text}
        return row | ({"labels": {"name": list(labels), "value": list(labels.values())}} if labels else {})

    rows = [
        message("q", None, "prompter", "Q"),
        message("a", "q", "assistant", "one", quality=1.0, helpfulness=0.5),
        message("b", "q", "assistant", "three", quality=0.25),
        message("more", "a", "prompter", "go on"),
        message("c", "more", "assistant", "on", quality=0.5),
        message("d", "more", "assistant", "and on", quality=0.75),
        message("z", None, "prompter", "Z"),
        message("y", "z", "assistant", "unrated"),
    ]
    found = asked(tmp_path, "labels", {"flat.jsonl": rows})
    # Four paths; both of those through "a" rate it, and it is one answer.
    assert found.gathered.dropped == {"no_labels": 1}
    given = sorted(tuple(sorted(item.given["quality"], key=str)) for item in found.items)
    assert given == [(1.0, 4.0), (2.0, 3.0)]
    assert len({item.opening for item in found.items}) == 1
    # One record is enough to supply the shared answer.
    assert sum(piece.turn_count for piece in found.gathered.asked.pieces) == 4
