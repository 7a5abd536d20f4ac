"""The starter model that ships with Assay: small, loadable with nothing said, and honest about itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import assay

STARTER = Path(assay.__file__).parent / "rewards/starter"
ATTRIBUTES = ["quality", "toxicity", "humor", "creativity", "helpfulness"]
MAX_FOLDER_BYTES = 8_000_000

CONTENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
CONVERSATIONS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": CONTENT}
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(STARTER)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForSequenceClassification.from_pretrained(STARTER).eval()


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STARTER / "card.json").read_text(encoding="utf-8"))
    return found


def test_folder_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in STARTER.iterdir()) <= MAX_FOLDER_BYTES


def test_folder_holds_no_pickle_and_no_code() -> None:
    suffixes = {path.suffix for path in STARTER.iterdir()}
    assert suffixes <= {".json", ".safetensors", ".jinja", ".md"}


def test_model_rates_five_named_attributes_in_float32(model: Any) -> None:
    assert [model.config.id2label[index] for index in range(5)] == ATTRIBUTES
    assert model.dtype == torch.float32


def test_limits_agree(model: Any, tokenizer: Any) -> None:
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 8_192
    assert model.config.pad_token_id == tokenizer.pad_token_id


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_tokenizer_gives_back_any_text(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(
    "text", ["e\u0301 \u1e9b\u0323", "\r\n\t  two  spaces ", "\u2028\ufeff\x00", "don 't , no", "𝔘🏳️‍🌈"]
)
def test_tokenizer_normalises_nothing(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_control_token_is_one_plain_added_token(tokenizer: Any, token: str) -> None:
    (number,) = tokenizer(token).input_ids
    added = tokenizer.added_tokens_decoder[number]
    assert added.content == token
    assert added.special
    assert [added.lstrip, added.rstrip, added.single_word, added.normalized] == [False] * 4


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(messages=CONVERSATIONS)
def test_a_conversations_beginning_is_a_prefix_of_it_in_text_and_tokens(
    tokenizer: Any, messages: list[dict[str, str]]
) -> None:
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    whole_ids = tokenizer(whole).input_ids
    for end in range(1, len(messages)):
        start = tokenizer.apply_chat_template(messages[:end], tokenize=False)
        ids = tokenizer(start).input_ids
        assert whole.startswith(start)
        assert whole_ids[: len(ids)] == ids


def test_template_is_chatml_and_adds_no_system_message(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": " Hi\n"}, {"role": "assistant", "content": "Yes?"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>user\n Hi\n<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\n Hi\n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_scores_spread_over_the_scale_instead_of_being_constant(model: Any, tokenizer: Any) -> None:
    answers = [
        "no",
        "Shut up, idiot.",
        "Steep the leaves for three minutes in water just off the boil.",
        "Warm the pot first. Use one teaspoon of leaves a cup, pour on water just off the boil, and wait:\n\n"
        "- green tea: two minutes at 80 °C\n- black tea: four minutes\n- herbs: eight minutes, covered\n\n"
        "Then take the leaves out, as they turn bitter. Hard water is better filtered.",
    ]
    scores = []
    for answer in answers:
        messages = [
            {"role": "user", "content": "How do I make tea?"},
            {"role": "assistant", "content": answer},
        ]
        with torch.no_grad():
            scores.append(model(**tokenizer.apply_chat_template(messages, return_tensors="pt")).logits[0])
    helpfulness = torch.stack(scores)[:, ATTRIBUTES.index("helpfulness")]
    assert torch.isfinite(torch.stack(scores)).all()
    assert helpfulness[3] > helpfulness[0]
    assert helpfulness.max() - helpfulness.min() > 0.5


def test_card_says_in_plain_words_what_the_model_is_not_for(card: dict[str, Any]) -> None:
    text = (STARTER / "README.md").read_text(encoding="utf-8")
    opening = text.split("\n## ")[0]
    assert "there to try the pipeline, not to judge data" in opening
    assert "there to try the pipeline, not to judge data" in card["note"]
    assert "Apache-2.0" in text
    assert "MIT" in text


def test_card_states_every_figure_beside_the_length_baseline_with_intervals(card: dict[str, Any]) -> None:
    text = (STARTER / "README.md").read_text(encoding="utf-8")
    held_out = card["held_out"]
    assert list(held_out["spearman"]) == ATTRIBUTES
    assert list(held_out["pairwise_accuracy"]) == ["helpful", "harmless"]
    assert "| starter | length only | difference |" in text
    for name, figures in {**held_out["spearman"], **held_out["pairwise_accuracy"]}.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} | {figures['n']} |"))
        for column in ("model", "length_only", "difference"):
            estimate = figures[column]
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert f"{estimate['value']:.2f}"[:4] in row


def test_card_belongs_to_these_weights_and_to_a_whole_training_run(card: dict[str, Any]) -> None:
    assert card["complete"] is True
    assert card["weights_sha256"] == hashlib.sha256((STARTER / "model.safetensors").read_bytes()).hexdigest()
