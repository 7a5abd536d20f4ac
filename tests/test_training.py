"""The starter's training: what it reads, how it splits and measures. Training itself takes too long here."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from places import ROOT

TRAINING = ROOT / "training"


@pytest.fixture(scope="module")
def human_labels() -> Iterator[ModuleType]:
    yield from _module("human_labels")


@pytest.fixture(scope="module")
def measures() -> Iterator[ModuleType]:
    yield from _module("measures")


def _module(name: str) -> Iterator[ModuleType]:
    sys.path.insert(0, str(TRAINING))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(TRAINING))


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def _oasst(name: str, parent: str | None, role: str, **labels: float) -> dict[str, Any]:
    return {
        "message_id": name,
        "parent_id": parent,
        "message_tree_id": "tree",
        "text": f"text of {name}",
        "role": role,
        "labels": {"name": list(labels), "value": list(labels.values())} if labels else None,
    }


def test_every_rated_oasst_message_is_read_once_on_the_scale_0_to_4(
    human_labels: Any, tmp_path: Path
) -> None:
    rows = [
        _oasst("a", None, "prompter", quality=0.5),
        _oasst("b", "a", "assistant", quality=1.0, helpfulness=0.75, spam=0.0),
        _oasst("c", "a", "assistant", toxicity=0.25),
        _oasst("d", "b", "prompter"),
    ]
    read = list(human_labels.read_oasst(_write(tmp_path / "oasst.gz", rows)))
    ratings = [(r.messages[i].content, labels) for r in read for i, labels in r.ratings.items()]
    assert sorted(ratings, key=lambda rating: rating[0]) == [
        ("text of a", {"quality": 2.0}),
        ("text of b", {"quality": 4.0, "helpfulness": 3.0}),
        ("text of c", {"toxicity": 1.0}),
    ]
    assert all(max(r.ratings) == len(r.messages) - 1 for r in read)


def test_an_oasst_message_without_its_parent_is_left_out(human_labels: Any, tmp_path: Path) -> None:
    rows = [_oasst("b", "lost", "assistant", quality=1.0)]
    assert list(human_labels.read_oasst(_write(tmp_path / "oasst.gz", rows))) == []


def test_hh_pairs_share_everything_but_the_last_answer(human_labels: Any, tmp_path: Path) -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Tea?\n\nAssistant:"
    rows = [
        {"chosen": f"{start} Please.", "rejected": f"{start} No."},
        {"chosen": f"{start} Same.", "rejected": f"{start} Same."},
        {"chosen": f"{start} Please.", "rejected": "\n\nHuman: Ho\n\nAssistant: No."},
    ]
    (pair,) = human_labels.read_hh(_write(tmp_path / "hh.gz", rows), "helpful")
    assert [m.role for m in pair.prompt] == ["user", "assistant", "user"]
    assert (pair.chosen, pair.rejected) == ("Please.", "No.")


def test_conversations_that_open_alike_are_in_one_split(human_labels: Any, tmp_path: Path) -> None:
    openings = ["Hello  there", "hello there", " HELLO THERE "]
    rows = [
        {
            "chosen": f"\n\nHuman: {opening}\n\nAssistant: {answer}",
            "rejected": f"\n\nHuman: {opening}\n\nAssistant: no",
        }
        for opening in openings
        for answer in "abc"
    ]
    groups = {pair.group for pair in human_labels.read_hh(_write(tmp_path / "hh.gz", rows), "helpful")}
    assert len(groups) == 1


def test_splits_are_about_as_large_as_their_buckets(human_labels: Any) -> None:
    splits = [human_labels.split_of(f"group {number}") for number in range(4_000)]
    shares = {name: splits.count(name) / len(splits) for name in human_labels.SPLITS}
    assert shares == pytest.approx({"train": 0.65, "dev": 0.15, "test": 0.20}, abs=0.03)


def test_rank_correlation_shares_ranks_among_ties(measures: Any) -> None:
    assert measures.average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert measures.spearman(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3])) == pytest.approx(1.0)
    assert measures.spearman(np.array([1.0, 2.0, 9.0]), np.array([0.3, 0.2, 0.1])) == pytest.approx(-1.0)
    assert measures.spearman(np.array([1.0, 1.0, 1.0]), np.array([0.3, 0.2, 0.1])) == 0.0


def test_a_tie_is_half_a_win(measures: Any) -> None:
    assert measures.pairwise_accuracy(np.array([1.0, -1.0, 0.0, 0.0])) == 0.5


def test_intervals_are_repeatable_and_widen_when_rows_come_in_groups(measures: Any) -> None:
    random = np.random.default_rng(0)
    wins = np.repeat(random.normal(size=40), 5)

    def accuracy(rows: np.ndarray) -> float:
        share: float = measures.pairwise_accuracy(wins[rows])
        return share

    alone = measures.compare([str(row) for row in range(200)], accuracy, accuracy, seed=1)
    grouped = measures.compare([str(row // 5) for row in range(200)], accuracy, accuracy, seed=1)
    again = measures.compare([str(row // 5) for row in range(200)], accuracy, accuracy, seed=1)
    assert grouped == again
    assert (grouped.n, grouped.groups) == (200, 40)
    assert grouped.model.high - grouped.model.low > alone.model.high - alone.model.low
    assert (grouped.difference.value, grouped.difference.low, grouped.difference.high) == (0.0, 0.0, 0.0)
