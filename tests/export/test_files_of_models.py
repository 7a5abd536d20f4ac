"""Files of a run with several models, and files of answers that ``--by`` orders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from handmade import HELPSTEER, Made, Record, Turn, make
from stages import build, decide

from assay.core.errors import UserMistake
from assay.export import check_exports, default_exports
from assay.select.rules import Rules, rules_in
from assay.select.selection import Selection, chosen_order
from assay.select.vocabulary import Vocabulary
from assay.storage.home import Home

COLUMNS = ("judge.reward", "judge.helpfulness", "guard.reward", "guard.toxicity")
WORDS = Vocabulary(COLUMNS, {}, {}, aliases=("judge", "guard"))


def written(
    made: Made, folder: Path, *exports: str, by: str | None = None, words: Vocabulary = WORDS, **chosen: Any
) -> Path:
    order = chosen_order(words, by)
    filtered = decide(
        made.converted,
        made.scored,
        rules=rules_in(chosen.pop("keep", ()), words),
        home=made.home,
        selection=Selection(order=order, **chosen),
    )
    folder.mkdir()
    build(made.converted, made.scored, filtered, home=made.home, staging=folder, exports=exports)
    return folder


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def record(line: int, answer: str, *turns: Sequence[float]) -> Record:
    chat = (("user", "Why?"), ("assistant", answer), ("user", "Really?"), ("assistant", "Yes."))
    return Record(line, chat[: 2 * len(turns)], tuple(Turn(tuple(one)) for one in turns))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Three answers to one prompt: by the judge the second is best, by the guard the third."""
    records = [
        record(1, "a", (1.0, 3.0, 0.5, 1.0)),
        record(2, "b", (3.0, 1.0, 1.5, 0.0), (9.0, 2.0, 9.0, 2.0)),
        record(3, "c", (2.0, 2.4, 2.5, 3.6)),
    ]
    return make(Home(tmp_path / "home"), {"a.jsonl": [records[:2], records[2:]]}, COLUMNS)


def test_labels_have_each_attribute_from_the_model_that_rates_it(made: Made, tmp_path: Path) -> None:
    out = written(made, tmp_path / "out", "steerlm")
    labels = [row["conversations"][1]["label"] for row in rows(out / "labeled.jsonl")]
    assert labels == ["toxicity:1,helpfulness:3", "toxicity:0,helpfulness:1", "toxicity:4,helpfulness:2"]


def test_without_an_order_there_is_no_score_and_with_one_it_is_the_score(made: Made, tmp_path: Path) -> None:
    bare = written(made, tmp_path / "bare", "messages")
    assert not any("score" in row for row in rows(bare / "messages.jsonl"))
    assert "score" not in pl.read_parquet(bare / "scores.parquet").columns
    out = written(made, tmp_path / "out", "messages", by="guard.reward")
    assert [row["score"] for row in rows(out / "messages.jsonl")] == [0.5, 9.0, 2.5]
    assert pl.read_parquet(out / "scores.parquet")["score"].to_list() == [0.5, 1.5, 9.0, 2.5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "chosen", "rejected"),
    [
        ("judge.reward", "b", "a"),
        ("guard.reward", "c", "a"),
        ("helpfulness", "a", "b"),
        ("mean(judge.reward)", "b", "a"),
        ("gap(judge.reward)", "a", "b"),
    ],
)
def test_pairs_are_ranked_by_what_the_run_names(
    made: Made, tmp_path: Path, by: str, chosen: str, rejected: str
) -> None:
    out = written(made, tmp_path / "out", "trl-preference", by=by)
    (pair,) = rows(out / "trl/preference.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (chosen, rejected)


def test_a_model_of_several_numbers_makes_pairs_by_the_one_that_is_named(tmp_path: Path) -> None:
    records = [
        record(n, text, (x, 3.0, 3.0, 1.0, y)) for n, text, x, y in ((1, "a", 0.6, 0.9), (2, "b", 0.7, 0.8))
    ]
    made = make(Home(tmp_path / "home"), {"a.jsonl": [records]})
    words = Vocabulary(HELPSTEER, {}, {})
    for by, best in (("helpfulness", "b"), ("verbosity", "a")):
        out = written(made, tmp_path / by, "trl-reward", "messages", by=by, words=words)
        (pair,) = rows(out / "trl/reward.jsonl")
        assert (pair["chosen"][0]["content"], pair["margin"]) == (best, 0.1)
    filtered = decide(made.converted, made.scored, rules=Rules(), home=made.home)
    assert all(piece.order is None for piece in filtered.pieces)


def test_what_the_run_names_ranks_answers_before_the_models_one_number(tmp_path: Path) -> None:
    records = [record(n, text, (x, y)) for n, text, x, y in ((1, "a", 1.0, 9.0), (2, "b", 2.0, 8.0))]
    made = make(Home(tmp_path / "home"), {"a.jsonl": [records]}, ("reward", "depth"))
    words = Vocabulary(("reward", "depth"), {}, {})
    out = written(made, tmp_path / "out", "trl-preference", "messages", by="depth", words=words)
    (pair,) = rows(out / "trl/preference.jsonl")
    assert pair["chosen"][0]["content"] == "a"
    assert [row["score"] for row in rows(out / "messages.jsonl")] == [1.0, 2.0]


def test_an_answer_that_is_masked_or_that_nothing_ranks_makes_no_pair(made: Made, tmp_path: Path) -> None:
    """The best answer of the judge is in the middle of a record and fails the rule."""
    out = written(
        made,
        tmp_path / "out",
        "trl-preference",
        by="judge.reward",
        keep=["judge.helpfulness >= 2"],
        on_fail="mask",
    )
    (pair,) = rows(out / "trl/preference.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("c", "a")


def test_exports_that_need_one_model_or_an_order_are_refused_without() -> None:
    twice = ("judge.helpfulness", "guard.helpfulness", "guard.toxicity")
    with pytest.raises(UserMistake, match=r"judge\.helpfulness and guard\.helpfulness"):
        check_exports(["steerlm"], twice)
    assert default_exports(twice) == ("messages",)
    assert default_exports(COLUMNS) == ("messages", "steerlm")
    check_exports(["steerlm", "messages"], COLUMNS)
    with pytest.raises(UserMistake, match=r"Choose one, as with `--by judge\.reward`"):
        check_exports(["trl-preference"], COLUMNS)
    check_exports(["trl-preference"], COLUMNS, are_ordered=True)
