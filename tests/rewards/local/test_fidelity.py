"""Every score equals what transformers itself gives for that prefix alone, whatever goes with it."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.core.schema import Conversation, Message, turn_positions
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.options import ModelOptions
from assay.rewards.protocol import Request, TurnScore

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5

texts = st.text(
    st.one_of(st.sampled_from("abc XYZ.,\n <>|/"), st.characters(exclude_categories=["Cs"])),
    min_size=1,
    max_size=60,
).map(lambda text: text if text.strip() else f"{text}.")
texts = st.tuples(texts, st.sampled_from(["", "", " ", "\n", "\n\n"])).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    pairs = draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for question, answer in pairs:
        thought = f"<think>{draw(texts)}</think>\n\n" if draw(st.integers(0, 4)) == 0 else ""
        messages += [Message("user", question), Message("assistant", thought + answer)]
    return tuple(messages)


def whole(conversation: Conversation) -> Request:
    return Request(conversation, tuple(range(len(turn_positions(conversation)))))


class Card:
    """The plain call of a model card: one conversation at a time, tokenized and padded by nobody."""

    def __init__(self, folder: str, family: str) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        kind = (
            transformers.AutoModelForCausalLM
            if family == "first-token-logit"
            else transformers.AutoModelForSequenceClassification
        )
        self.model = kind.from_pretrained(folder, dtype=torch.float32).eval()
        self.family = family

    @torch.inference_mode()
    def score(self, messages: Conversation) -> list[float]:
        rendered = self.tokenizer.apply_chat_template(
            [dataclasses.asdict(message) for message in messages],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        assert isinstance(rendered, transformers.BatchEncoding)
        logits = self.model(input_ids=rendered["input_ids"]).logits
        return [float(logits[0, -1, 0])] if self.family == "first-token-logit" else logits[0].tolist()


def assert_same(ours: TurnScore, expected: list[float]) -> None:
    assert ours.values is not None, ours.reason
    for value, reference in zip(ours.values, expected, strict=True):
        assert abs(value - reference) <= TOLERANCE * max(1.0, abs(reference))


def matrix() -> list[tuple[str, str, bool]]:
    cases = [("sequence-classification", name, False) for name in tiny.TEMPLATES]
    cases += [("sequence-classification", "chatml", True), ("sequence-classification", "moving-system", True)]
    cases += [("sequence-classification", "spaced", True)]
    return [*cases, ("first-token-logit", "chatml", False), ("first-token-logit", "plain", False)]


@pytest.fixture(scope="module", params=matrix(), ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def model_and_card(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LocalRewardModel, Card]:
    family, template, stripping = request.param
    folder = tiny.reward_model(
        tmp_path_factory.mktemp("model"),
        template=tiny.TEMPLATES[template],
        family=family,
        max_tokens=4096,
        stripping=stripping,
    )
    torch.set_num_threads(1)
    return LocalRewardModel(tiny.spec(folder, ModelOptions(family=family))), Card(str(folder), family)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(conversations(), min_size=1, max_size=6), st.sampled_from([1, 64, 400, 4096]))
def test_score_equals_the_cards_own_call_whatever_the_batch(
    model_and_card: tuple[LocalRewardModel, Card], batch: list[Conversation], budget: int
) -> None:
    model, card = model_and_card
    model._budget.max_tokens = budget
    for conversation, outcomes in zip(batch, model.score([whole(one) for one in batch]), strict=True):
        for position, outcome in zip(turn_positions(conversation), outcomes, strict=True):
            if outcome.reason and outcome.reason.startswith("forged_control_token"):
                continue
            assert_same(outcome, card.score(conversation[: position + 1]))


def test_every_turn_is_read_from_one_pass_where_the_template_allows_it(
    model_and_card: tuple[LocalRewardModel, Card], request: pytest.FixtureRequest
) -> None:
    model, _ = model_and_card
    conversation = tuple(
        Message(role, text)
        for text in ("One two three.", "Four five six.", "Seven.")
        for role in ("user", "assistant")
    )
    (rendered,) = model.renderer.render([whole(conversation)])
    name = request.node.callspec.id
    assert len(rendered.passes) == (3 if "label-suffix" in name or "numbered" in name else 1)
    assert sum(len(one.reads) for one in rendered.passes) == 3


def test_moving_system_message_falls_back_to_prefixes(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny.reward_model(tmp_path_factory.mktemp("moving"), template=tiny.MOVING_SYSTEM)
    model = LocalRewardModel(tiny.spec(folder))
    conversation = (
        Message("system", "Be kind."),
        Message("user", "Hello"),
        Message("assistant", "Hi."),
        Message("user", "Bye"),
        Message("assistant", "So long."),
    )
    (rendered,) = model.renderer.render([whole(conversation)])
    assert [len(one.reads) for one in rendered.passes] == [1, 1]
    card = Card(str(folder), "sequence-classification")
    (outcomes,) = model.score([whole(conversation)])
    assert_same(outcomes[0], card.score(conversation[:3]))
    assert_same(outcomes[1], card.score(conversation))
