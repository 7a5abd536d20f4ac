"""Shards hold what is cheap to score together, and the same data give the same shards."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import fakes
import handmade
import polars as pl
import pytest
from handmade import Record
from hypothesis import given
from hypothesis import strategies as st

from assay.score import plan
from assay.score.plan import REACH_TOKENS, shard_numbers
from assay.score.store import ScoreStore
from assay.storage.home import Home
from assay.storage.manifests import Converted


def members(numbers: list[int]) -> list[list[int]]:
    shards = defaultdict(list)
    for record, number in enumerate(numbers):
        shards[number].append(record)
    return [shards[number] for number in sorted(shards)]


def lengths(count: int) -> list[int]:
    seeded = random.Random(1)
    return [seeded.randrange(20, 1_500) for _ in range(count)]


@given(
    st.lists(st.tuples(st.integers(1, 3_000), st.integers(0, 20)), max_size=200),
    st.sampled_from([1, 500, 4_000, 100_000, REACH_TOKENS, 4 * REACH_TOKENS]),
)
def test_every_record_is_in_one_shard_and_no_shard_is_much_larger_than_wanted(
    records: list[tuple[int, int]], shard_tokens: int
) -> None:
    tokens = [size for size, _ in records]
    numbers = shard_numbers(tokens, [bytes([beginning]) for _, beginning in records], shard_tokens)
    assert len(numbers) == len(records)
    shards = members(numbers)
    assert sorted(set(numbers)) == list(range(len(shards)))
    for shard in shards:
        # Below its size before the last group came, which is kept up to four shards.
        assert sum(tokens[record] for record in shard) < 5 * shard_tokens + max(tokens)


def test_a_shard_of_the_largest_size_holds_the_records_in_input_order() -> None:
    tokens = lengths(1_500)
    numbers = shard_numbers(tokens, [b"alike"] * 1_500, REACH_TOKENS)
    assert numbers == sorted(numbers)
    filled = [sum(tokens[record] for record in shard) for shard in members(numbers)]
    assert len(filled) > 4
    assert all(REACH_TOKENS <= one < REACH_TOKENS + 2_000 for one in filled[:-1])


def test_texts_of_one_length_are_scored_together() -> None:
    tokens = lengths(340)
    shards = members(shard_numbers(tokens, None, 5_000))
    assert len(shards) > 40
    spread = [max(tokens[r] for r in shard) / min(tokens[r] for r in shard) for shard in shards]
    assert sorted(spread)[len(spread) // 2] < 1.1
    for one, next_one in pairwise(shards):
        assert min(tokens[r] for r in one) >= max(tokens[r] for r in next_one)


def test_what_begins_alike_too_often_is_parted_by_length() -> None:
    tokens = lengths(300)
    shards = members(shard_numbers(tokens, [b"Hi"] * 300, 2_000))
    assert len(shards) > 15
    assert all(sum(tokens[r] for r in shard) < 4 * 2_000 + 1_500 for shard in shards)
    for one, next_one in pairwise(shards):
        assert min(tokens[r] for r in one) >= max(tokens[r] for r in next_one)


def answers(prompt: int, count: int, *, more: tuple[str, str] | None = None) -> list[Record]:
    """Records that answer the same prompt; with ``more`` before it, in their second turn."""
    records = []
    for number in range(count):
        said = [("user", f"prompt {prompt} " * 20), ("assistant", f"answer {number} " * (3 * number + 1))]
        if more is not None:
            said = [("user", more[0]), ("assistant", more[1]), *said]
        records.append(Record(number + 1, tuple(said)))
    return records


def planned(tmp_path: Path, converted: Converted, home: Home, shard_tokens: int) -> pl.DataFrame:
    model = fakes.spec(tmp_path / "model")
    store = ScoreStore(home, model.fingerprint, model.attributes)
    missing = plan.unstored(converted, store.open(), home)
    return plan.write(missing, converted, model, home, shard_tokens=shard_tokens).turns()


@pytest.mark.parametrize("files", [1, 8], ids=["in one file", "an answer a file"])
@pytest.mark.parametrize("turns", [1, 2])
def test_answers_to_one_prompt_stay_together(files: int, turns: int, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    groups = [
        answers(prompt, 8, more=(f"first {prompt}", f"reply {prompt}") if turns == 2 else None)
        for prompt in range(20)
    ]
    if files == 1:
        made = handmade.make(home, {"chat.jsonl": [[one for group in groups for one in group]]})
    else:
        made = handmade.make(home, {f"{n}.jsonl": [[group[n] for group in groups]] for n in range(8)})
    turns_planned = planned(tmp_path, made.converted, home, 1_500)
    shard_of = {
        (piece, row): shard for shard, piece, row in turns_planned["shard", "piece", "row"].iter_rows()
    }
    assert len(set(shard_of.values())) > 5
    for prompt in range(20):
        places = [(0, 8 * prompt + n) if files == 1 else (n, prompt) for n in range(8)]
        assert len({shard_of[place] for place in places}) == 1
    assert turns_planned.equals(turns_planned.sort("shard", "piece", "row", "turn"))


def test_the_same_data_give_the_same_plan(tmp_path: Path) -> None:
    written = []
    for run in ("one", "other"):
        home = Home(tmp_path / run)
        records = [record for prompt in range(30) for record in answers(prompt, 4)]
        planned(tmp_path, handmade.make(home, {"chat.jsonl": [records]}).converted, home, 700)
        (seal,) = home.plans.rglob("plan.json")
        written.append(json.loads(seal.read_bytes())["members"])
    assert written[0] == written[1]
