"""Sequences that begin alike are scored as if each stood alone, and what they share is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_families as families
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.core.schema import Message, turn_positions
from assay.rewards.local import continuing, sharing
from assay.rewards.local.batching import BatchOutcome, TokenBudget
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local.opening import Sharing
from assay.rewards.local.sharing import Shared
from assay.rewards.options import ModelOptions
from assay.rewards.protocol import Request, TurnScore

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5

sequences = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=8), max_size=9)
random_groups = st.lists(
    st.tuples(st.integers(1, 300), st.lists(st.integers(1, 300), min_size=2, max_size=6)), max_size=6
)


def arrays(lists: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [np.array(one, dtype=np.int32) for one in lists]


def most_saved(rows: list[tuple[int, ...]], *, depth: int, least: int, part: float) -> int:
    """Tokens saved by the best choice, by trying every beginning."""
    if len(rows) < 2:
        return 0
    saved = (len(rows) - 1) * depth
    together = saved if depth >= least and saved >= part * sum(map(len, rows)) else 0
    branches: dict[Any, list[tuple[int, ...]]] = {}
    for number, row in enumerate(rows):
        # The last token of a sequence is never shared: there a sequence goes its own way.
        branches.setdefault(row[depth] if depth < len(row) - 1 else ("end", number), []).append(row)
    apart = sum(most_saved(one, depth=depth + 1, least=least, part=part) for one in branches.values())
    return max(together, apart)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequences)
def test_the_beginnings_chosen_are_those_that_save_most(
    monkeypatch: pytest.MonkeyPatch, rows: list[list[int]]
) -> None:
    monkeypatch.setattr(sharing, "MIN_SHARED_TOKENS", 2)
    groups = sharing.shared_beginnings(arrays(rows))
    members = [member for group in groups for member in group.members]
    assert len(members) == len(set(members))
    for group in groups:
        assert len({tuple(rows[member][: group.tokens]) for member in group.members}) == 1
        assert all(len(rows[member]) > group.tokens for member in group.members)
        assert list(group.members) == sorted(group.members)
    saved = sum((len(group.members) - 1) * group.tokens for group in groups)
    expected = most_saved([tuple(row) for row in rows], depth=0, least=2, part=sharing.MIN_SAVED)
    assert saved == expected


def test_a_short_common_beginning_is_not_worth_a_pass() -> None:
    same = [7] * (sharing.MIN_SHARED_TOKENS - 1)
    assert sharing.shared_beginnings(arrays([[*same, 1, 1], [*same, 2, 2]])) == []
    assert sharing.shared_beginnings(arrays([[7, *same, 1], [7, *same, 2]])) == [Shared((0, 1), 64)]


def test_a_common_beginning_is_not_worth_it_before_much_longer_rests() -> None:
    same = [7] * 100
    rests = [[number] * 500 for number in range(1, 9)]
    assert sharing.shared_beginnings(arrays([same + rest for rest in rests])) == []


@given(random_groups, st.integers(1, 4000), st.floats(0, 8), st.none() | st.integers(0, 2000))
def test_every_member_is_continued_once_within_what_its_beginnings_leave(
    drawn: list[tuple[int, list[int]]], max_tokens: int, kept: float, busy_tokens: int | None
) -> None:
    budget = TokenBudget(max_tokens, busy_tokens)
    groups: list[Shared] = []
    lengths: list[int] = []
    for tokens, rests in drawn:
        groups.append(Shared(tuple(range(len(lengths), len(lengths) + len(rests))), tokens))
        lengths += [tokens + rest for rest in rests]
    done = []
    for batch in sharing.packed(groups, lengths, budget, cached_token_cost=kept):
        longest = max(group.tokens for group in batch)
        begun = sharing.beginnings_cost(len(batch), longest, kept)
        assert len(batch) == 1 or begun <= max_tokens // 2
        for rows in sharing.continuations(batch, lengths, budget, cached_token_cost=kept):
            rests = [lengths[row.member] - batch[row.beginning].tokens for row in rows]
            assert len(rows) == 1 or begun + sharing.rows_cost(len(rows), longest, max(rests)) <= max_tokens
            busy = (len(rows) - 1) * max(rests) >= (busy_tokens or 0)
            assert not busy or min(rests) >= 0.75 * max(rests)
            assert all(row.member in batch[row.beginning].members for row in rows)
            done += [row.member for row in rows]
    assert sorted(done) == list(range(len(lengths)))


def test_out_of_memory_parts_groups_and_is_told_of_one_group_only() -> None:
    groups = [Shared((2 * number, 2 * number + 1), 100) for number in range(4)]
    budget = TokenBudget(10_000)

    def forward(batch: list[Shared]) -> BatchOutcome:
        return BatchOutcome.OUT_OF_MEMORY if len(batch) > 1 or groups[2] in batch else BatchOutcome.DONE

    ended = list(sharing.run(groups, [150] * 8, budget, forward, cached_token_cost=1))
    assert sorted(batch[0] for batch, _ in ended) == groups
    assert [batch[0] for batch, outcome in ended if outcome is BatchOutcome.OUT_OF_MEMORY] == [groups[2]]
    assert budget.max_tokens < 10_000


@st.composite
def mixed_requests(draw: st.DrawFn) -> list[Request]:
    """Prompts with several answers, trees that branch early and late, some that share nothing."""
    words = st.lists(
        st.sampled_from(["fox", "dog", "Paris", "rain;", "light\n", "é"]), min_size=1, max_size=25
    )
    texts = words.map(" ".join)
    requests = []
    for _ in range(draw(st.integers(1, 4))):
        begun = [Message("system", draw(texts))] if draw(st.booleans()) else []
        for _ in range(draw(st.integers(0, 2))):
            begun += [Message("user", draw(texts)), Message("assistant", draw(texts))]
        begun.append(Message("user", draw(texts)))
        for _ in range(draw(st.integers(1, 5))):
            messages = (*begun, Message("assistant", draw(texts)))
            if draw(st.booleans()):
                messages += (Message("user", draw(texts)), Message("assistant", draw(texts)))
            count = len(turn_positions(messages))
            turns = draw(st.sets(st.integers(0, count - 1), min_size=1))
            requests.append(Request(messages, tuple(sorted(turns))))
    return draw(st.permutations(requests))


@pytest.fixture(
    scope="module",
    params=[
        "sequence-classification",
        "first-token-logit",
        "gated-objectives",
        "attribute-mixture",
        "appended-token",
        "moving-system",
        "label-suffix",
    ],
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalRewardModel:
    torch.set_num_threads(1)
    family, template = request.param, tiny.CHATML
    if family in ("gated-objectives", "attribute-mixture", "appended-token"):
        families.copy_code_to(tmp_path_factory.mktemp("modules"))
        return LocalRewardModel(families.FAMILIES[family](tmp_path_factory.mktemp("model"), "chatml").spec)
    if family in tiny.TEMPLATES:
        family, template = "sequence-classification", tiny.TEMPLATES[family]
    folder = tiny.reward_model(
        tmp_path_factory.mktemp("model"), template=template, family=family, max_tokens=4096
    )
    return LocalRewardModel(tiny.spec(folder, ModelOptions(family=family)))


def assert_as_whole(
    model: LocalRewardModel, requests: Sequence[Request], ours: list[list[TurnScore]]
) -> None:
    for request, outcomes in zip(requests, ours, strict=True):
        (rendered,) = model.renderer.render([request])
        expected = {}
        with torch.inference_mode():
            for one in rendered.passes:
                (rows,) = model._forward([one])
                expected.update({read.turn: row for read, row in zip(one.reads, rows, strict=True)})
        for turn, outcome in zip(request.turns, outcomes, strict=True):
            assert outcome.values is not None
            for value, reference in zip(outcome.values, expected[turn], strict=True):
                assert abs(value - reference) <= TOLERANCE * max(1.0, abs(reference))


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mixed_requests(), st.sampled_from([1, 200, 4096]))
def test_score_is_that_of_the_whole_sequence_whatever_is_shared(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch, requests: list[Request], budget: int
) -> None:
    monkeypatch.setattr(sharing, "MIN_SHARED_TOKENS", 3)
    monkeypatch.setattr(sharing, "MIN_SAVED", 0.02)
    monkeypatch.setattr(model._budget, "max_tokens", budget)
    assert model.shares_no_beginnings_because is None
    assert_as_whole(model, requests, model.score(requests))


def best_of(count: int, *, words: int = 200) -> list[Request]:
    prompt = Message("user", "fox and dog " * words)
    return [
        Request((prompt, Message("assistant", f"{number} " + "rain " * (number * 3 + 1))), (0,))
        for number in range(count)
    ]


def test_the_prompt_of_several_answers_is_computed_once(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = best_of(8)
    before = model.tokens_seen
    assert_as_whole(model, requests, model.score(requests))
    shared = model.tokens_seen - before
    monkeypatch.setattr(model, "sharing", Sharing("told so"))
    model.score(requests)
    assert shared < (model.tokens_seen - before - shared) / 4


def test_a_turn_inside_a_beginning_is_read_from_its_own_beginning(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        Request(
            (
                Message("user", f"{animal} " * 80),
                Message("assistant", f"{animal} and rain"),
                Message("user", "And then?"),
                Message("assistant", answer),
            ),
            (0, 1),
        )
        for animal in ("fox", "dog", "light")
        for answer in ("Paris", "Nothing at all; it rains.")
    ]
    beginnings = []
    begin = model.network.begin

    def counted(ids: Sequence[np.ndarray]) -> continuing.Beginnings:
        beginnings.append(len(ids))
        return begin(ids)

    monkeypatch.setattr(model.network, "begin", counted)
    assert_as_whole(model, requests, model.score(requests))
    assert max(beginnings) > 1, "no batch held several beginnings"


def test_memory_that_does_not_suffice_for_a_group_changes_no_score(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = best_of(4)

    def full(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(continuing.Beginnings, "continued", full)
    before = model.tokens_seen
    assert_as_whole(model, requests, model.score(requests))
    assert model.tokens_seen - before > 4 * 200, "each was put through whole, and counted once"


def test_where_nothing_is_shared_the_way_is_that_of_whole_sequences(
    model: LocalRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuing, "Beginnings", None)
    texts = ["The quick brown fox", "What is the capital", "Please explain how", "rainbows form"]
    requests = [Request((Message("user", text), Message("assistant", f"So. {text}")), (0,)) for text in texts]
    assert_as_whole(model, requests, model.score(requests))


def windowed(folder: Path) -> Path:
    """The folder of a random Mistral that looks back 16 tokens only."""
    fast = tiny.tokenizer(tiny.CHATML)
    config = transformers.MistralConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        sliding_window=16,
        pad_token_id=fast.pad_token_id,
        initializer_range=0.1,
        id2label={0: "reward"},
    )
    torch.manual_seed(0)
    transformers.MistralForSequenceClassification(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_a_model_that_forgets_its_beginning_gets_whole_sequences(tmp_path: Path) -> None:
    model = LocalRewardModel(tiny.spec(windowed(tmp_path)))
    assert model.shares_no_beginnings_because == "a DynamicSlidingWindowLayer forgets the beginning"
    requests = best_of(4)
    assert_as_whole(model, requests, model.score(requests))


def test_a_model_whose_continuation_differs_is_found_out_at_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = continuing.Beginnings._mask
    monkeypatch.setattr(
        continuing.Beginnings,
        "_mask",
        lambda self, lengths, time: mask(self, lengths, time).zero_(),
    )
    model = LocalRewardModel(tiny.spec(tiny.reward_model(tmp_path)))
    assert model.shares_no_beginnings_because is not None
    assert "otherwise than whole" in model.shares_no_beginnings_because
    requests = best_of(4, words=20)
    assert_as_whole(model, requests, model.score(requests))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_attn_implementation": "flash_attention_2"}, "takes no mask of our own"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}}, "depends on the length"),
    ],
)
def test_what_speaks_against_sharing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], reason: str
) -> None:
    model = LocalRewardModel(tiny.spec(tiny.reward_model(tmp_path)))
    for name, value in change.items():
        key = name if name in vars(model.network.model.config) else f"{name}_internal"
        monkeypatch.setitem(vars(model.network.model.config), key, value)
    why = continuing.why_not(model.network.backbone)
    assert why is not None
    assert reason in why
