"""Shards hold what is cheap to score together, and the same data give the same shards."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import fakes
import handmade
import planning
import polars as pl
import pytest
from handmade import Record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from assay.rewards.protocol import TurnScore
from assay.score import plan, scoring
from assay.score.plan import REACH_TOKENS, shard_numbers
from assay.score.store import KEY, ScoreStore
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
    return pl.concat(planning.written(converted, model, home, shard_tokens=shard_tokens).parts())


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


def plainly_missing(converted: Converted, store: ScoreStore, home: Home, lookup: int) -> pl.DataFrame:
    """The missing turns as one loop finds them that holds all keys in memory."""
    frames: list[dict[str, Any]] = []
    planned: set[bytes] = set()
    place = itemgetter("piece", "row", "turn")
    record_of = itemgetter("piece", "row")
    for group in plan.groups_of_pieces(converted.pieces, most_turns=lookup):
        turns = plan.turns_of(converted.pieces[group.start : group.stop], group.start, home)
        stored = set(store.stored(turns[KEY].unique())[KEY])
        rows = [one for one in turns.iter_rows(named=True) if one[KEY] not in stored | planned]
        breadth = Counter(map(record_of, rows))
        chosen: dict[bytes, dict[str, Any]] = {}
        for one in sorted(rows, key=lambda one: (-breadth[record_of(one)], place(one))):
            chosen.setdefault(one[KEY], one)
        planned |= chosen.keys()
        kept = sorted(chosen.values(), key=place)
        longest = {record_of(one): one["text_bytes"] for one in kept}
        for one in kept:
            one["record_tokens"] = longest[record_of(one)] // plan.BYTES_PER_TOKEN + 1
        frames += kept
    return pl.DataFrame(frames, schema={**turns.schema, "record_tokens": pl.UInt32})


def plainly_in_shards(turns: pl.DataFrame, beginnings: list[bytes] | None, shard_tokens: int) -> pl.DataFrame:
    """The turns with the number of their shard, all records at once."""
    records = turns.group_by("piece", "row", maintain_order=True).agg(pl.col("record_tokens").first())
    numbers = shard_numbers(records["record_tokens"].to_list(), beginnings, shard_tokens)
    numbered = records.select("piece", "row", pl.Series("shard", numbers, pl.UInt32))
    return turns.join(numbered, on=["piece", "row"], how="left", maintain_order="left").sort(
        "shard", maintain_order=True
    )


CHAT = st.lists(st.sampled_from(["a", "b", "some more words " * 3]), min_size=1, max_size=3)
PIECES = st.lists(st.lists(CHAT, min_size=1, max_size=4), min_size=1, max_size=7)


def chatted(line: int, chat: list[str]) -> Record:
    return Record(line, tuple((role, text) for text in chat for role in ("user", "assistant")))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PIECES, st.data())
def test_however_few_turns_are_held_at_once_the_plan_is_that_of_all_at_once(
    tmp_path: Path, pieces: list[list[list[str]]], data: st.DataObject
) -> None:
    home = Home(tmp_path / uuid4().hex)
    made = handmade.make(
        home,
        {
            f"{number}.jsonl": [[chatted(line, chat) for line, chat in enumerate(chats, 1)]]
            for number, chats in enumerate(pieces)
        },
    ).converted
    model = fakes.spec(tmp_path / "model")
    store = ScoreStore(home, model.fingerprint, model.attributes)
    keys = [key for piece in made.pieces for key in pl.read_parquet(home.artifacts / piece.turns.path)[KEY]]
    scored = data.draw(st.sets(st.sampled_from(sorted(set(keys))), max_size=3))
    if scored:
        store.write({key: TurnScore((1.0,) * len(model.attributes)) for key in sorted(scored)})
    lookup, bucket = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    shard_tokens, reach = data.draw(st.sampled_from([1, 20, 60])), data.draw(st.sampled_from([1, 100]))
    expected = plainly_missing(made, store.open(), home, lookup)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(plan, "LOOKUP_TURNS", lookup)
        small.setattr(plan, "REACH_TOKENS", reach)
        for module in ("plan", "buckets"):
            package = "score" if module == "plan" else "storage"
            small.setattr(f"assay.{package}.{module}.BUCKET_ROWS", bucket)
        with TemporaryDirectory() as name:
            found = plan.unstored(made, store.open(), home, Path(name))
            distinct = plan.distinct_turns(made, home, Path(name))
            parts = list(found.parts)
        assert distinct == len(set(keys))
        assert (found.turns, distinct - found.turns) == (expected.height, len(scored))
        if not parts:
            return
        assert_frame_equal(pl.concat(parts), expected)
        assert found.records == expected.unique(["piece", "row"]).height
        assert found.turn_tokens == sum(size // plan.BYTES_PER_TOKEN + 1 for size in expected["text_bytes"])
        written = planning.written(made, model, home, shard_tokens=shard_tokens)
        members = pl.concat(written.parts())
        beginnings = None
        if shard_tokens * 2 <= reach:
            beginnings = [
                handmade_beginning(made, home, piece, row)
                for piece, row in expected.select("piece", "row").unique(maintain_order=True).iter_rows()
            ]
        plain = plainly_in_shards(expected, beginnings, shard_tokens)
        assert_frame_equal(members, plain.select(members.columns))
        shards = list(scoring.shards_of(written.parts(), made))
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert_frame_equal(
        pl.concat([one.members for one in shards]), members.select("piece", "row", "turn", KEY)
    )


def handmade_beginning(made: Converted, home: Home, piece: int, row: int) -> bytes:
    """The key of a record's first turn, or of its prompt where it has one turn only."""
    turns = pl.read_parquet(home.artifacts / made.pieces[piece].turns.path).filter(pl.col("row") == row)
    records = pl.read_parquet(home.artifacts / made.pieces[piece].records.path).filter(pl.col("row") == row)
    return bytes(turns[KEY][0] if turns.height > 1 else records["prompt_key"][0])
