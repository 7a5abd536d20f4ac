"""Preference data in every layout that Assay reads: which answer is better, and what is not compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import asked, evaluation, figures, given

from assay.evaluate.items import AskedItem


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


#: By layout: rows of one comparison each, whose better answer is "good" and whose worse one is "bad answer".
LAYOUTS: dict[str, list[dict[str, object]]] = {
    "TRL": [
        {"prompt": [user("Q")], "chosen": [assistant("good")], "rejected": [assistant("bad answer")]},
    ],
    "HH": [
        {
            "chosen": "\n\nHuman: Q\n\nAssistant: good",
            "rejected": "\n\nHuman: Q\n\nAssistant: bad answer",
        }
    ],
    "a vote": [{"prompt": "Q", "response_a": "bad answer", "response_b": "good", "winner": "model_b"}],
    "HelpSteer2": [
        {"prompt": "Q", "response_1": "good", "response_2": "bad answer", "preference_strength": -2}
    ],
    "ratings": [
        {
            "instruction": "Q",
            "completions": [
                {"response": "bad answer", "overall_score": 2.0},
                {"response": "good", "overall_score": 7.0},
            ],
        }
    ],
    "ranks": [{"prompt": "Q", "responses": ["bad answer", "good"], "ranks": [2, 1]}],
    "ratings in rows of their own": [
        {"prompt": "Q", "response": "bad answer", "helpfulness": 1, "correctness": 4},
        {"prompt": "Q", "response": "good", "helpfulness": 3, "correctness": 1},
    ],
    "true and false": [
        {"prompt": "Q", "completion": "bad answer", "label": False},
        {"prompt": "Q", "completion": "good", "label": True},
    ],
}


def better_and_worse(item: AskedItem) -> tuple[int, int]:
    """The characters of the best and of the worst answer."""
    ordered = sorted(item.answers, key=lambda answer: -answer.worth)
    return ordered[0].characters, ordered[-1].characters


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_which_answer_is_better(layout: str, tmp_path: Path) -> None:
    found = asked(tmp_path, "preferences", {"rows.jsonl": LAYOUTS[layout]})
    (item,) = found.items
    assert better_and_worse(item) == (len("good"), len("bad answer"))
    made = figures(found, lambda item, answer: -float(answer.characters))
    assert (made.overall.correct, made.overall.total) == (1, 1)
    assert made.length_baseline.correct == 0


def test_what_cannot_be_compared_is_dropped_and_counted(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        *LAYOUTS["TRL"],
        {"prompt": "Q", "response_a": "one", "response_b": "two", "winner": "tie"},
        {"prompt": "Q", "chosen": "same", "rejected": "same"},
        {
            "chosen": [user("Q"), assistant("good")],
            "rejected": [user("another"), assistant("bad")],
        },
        {"prompt": "Q", "chosen": "fine", "rejected": ""},
        {"prompt": "alone", "response": "an answer", "helpfulness": 2},
    ]
    found = asked(tmp_path, "preferences", {"rows.jsonl": rows})
    assert (found.gathered.rows.read, found.gathered.rows.used) == (6, 1)
    assert found.gathered.dropped == {"different_prompts": 1, "no_preference": 2, "same_answer": 1}
    assert found.gathered.quarantined == {"empty_content": 1}
    # What says nothing is not missing; what could not be read is.
    made = evaluation(found, given(found, lambda item, answer: answer.worth))
    assert made.why_incomplete == ("1 row could not be read",)
    assert not made.complete
    assert made.expected is None


def test_several_of_each_side_are_all_compared(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "chosen": ["a", "b"], "rejected": ["c", "d", "e"]}]
    made = figures(asked(tmp_path, "preferences", {"rows.jsonl": rows}), lambda item, answer: 1.0)
    assert (made.overall.total, made.overall.ties, made.doubts.no_spread) == (6, 6, 1.0)


def test_parts_and_languages_that_rows_name_are_shown(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Q{n}", "chosen": "good", "rejected": "bad answer", "subset": part, "lang": language}
        for n, (part, language) in enumerate([("x", "en"), ("x", "de"), ("y", "de")])
    ]
    made = figures(
        asked(tmp_path, "preferences", {"rows.jsonl": rows}),
        lambda item, answer: answer.worth if item.language == "de" else -answer.worth,
    )
    assert {name: (one.correct, one.total) for name, one in made.groups.items()} == {"x": (1, 2), "y": (1, 1)}
    languages = {name: (one.correct, one.total) for name, one in made.doubts.languages.items()}
    assert languages == {"de": (2, 2), "en": (0, 1)}


@pytest.mark.parametrize("winner", ["model_a", "model_b"])
def test_the_place_of_the_better_answer_is_shown_where_a_row_has_one(winner: str, tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "response_a": "one", "response_b": "three", "winner": winner}]
    made = figures(asked(tmp_path, "preferences", {"rows.jsonl": rows}), lambda item, answer: answer.worth)
    where = "better answer first" if winner == "model_a" else "better answer second"
    assert list(made.doubts.positions) == [where]
    of_sides = asked(tmp_path / "sides", "preferences", {"rows.jsonl": LAYOUTS["TRL"]})
    assert figures(of_sides, lambda item, answer: 0.0).doubts.positions == {}
