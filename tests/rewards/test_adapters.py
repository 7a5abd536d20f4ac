"""A LoRA adapter is merged into its base, or refused as what it is; each of its tensors is accounted for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny
import tiny_families as families
import torch
import transformers
from tiny_families import Tiny

from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import Conversation, turn_positions
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local_spec import local_spec
from assay.rewards.protocol import Request

TOLERANCE = 1e-5

peft = pytest.importorskip("peft", reason="the extra peft is not installed")
#: What peft calls of transformers is deprecated there; it changes nothing.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def adapted(model: Any, folder: Path, task: str, **settings: Any) -> Any:
    """A model with a LoRA adapter that does something, saved to the folder."""
    found = peft.get_peft_model(
        model, peft.LoraConfig(task_type=task, r=4, target_modules=["q_proj", "v_proj"], **settings)
    )
    torch.manual_seed(12)
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    found.save_pretrained(folder)
    return found.eval()


def classifier(folder: Path, base: Path) -> Callable[[Conversation], list[float]]:
    """An adapter of a classifier in ``folder``; the plain call of base and adapter, which are not merged."""
    torch.manual_seed(11)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.score.weight.data.normal_()
    model.config.pad_token_id = None
    found = adapted(model, folder, "SEQ_CLS")
    fast = transformers.AutoTokenizer.from_pretrained(base)

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        values: list[float] = found(input_ids=families._ids(fast, messages)).logits[0].tolist()
        return values

    return card


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def assert_every_turn_is_the_cards(built: Tiny) -> None:
    talks = families.conversations(8, seed=41)
    requests = [Request(one, tuple(range(len(turn_positions(one))))) for one in talks]
    model = LocalRewardModel(built.spec, batch_tokens=400)
    for talk, outcomes in zip(talks, model.score(requests), strict=True):
        for position, outcome in zip(turn_positions(talk), outcomes, strict=True):
            assert outcome.values is not None, outcome.reason
            for value, expected in zip(outcome.values, built.card(talk[: position + 1]), strict=True):
                assert abs(value - expected) <= TOLERANCE * max(1.0, abs(expected))


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    return tiny.reward_model(tmp_path / "base", family="first-token-logit")


@pytest.mark.parametrize("base", ["chat model", "reward model"])
def test_a_classifiers_adapter_scores_as_base_and_adapter_do(base: str, chat: Path, tmp_path: Path) -> None:
    if base == "reward model":
        chat = tiny.reward_model(tmp_path / "rewards", attributes=("reward",))
    card = classifier(tmp_path / "adapter", chat)
    spec = local_spec(str(tmp_path / "adapter"))
    assert (spec.family, spec.attributes) == ("sequence-classification", ("reward",))
    assert spec.notes[1] == f"{spec.name} is a LoRA adapter, merged into {chat} whenever it is loaded."
    assert_every_turn_is_the_cards(Tiny(spec, card))


def test_a_value_head_beside_an_adapter_is_read_as_llama_factory_saves_it(chat: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(chat)
    found = adapted(model, tmp_path / "adapter", "CAUSAL_LM")
    head = families.ValueHead(32, ())
    tensors = {f"v_head.summary.{name}": tensor for name, tensor in head.summary.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "adapter" / "value_head.safetensors")
    fast = transformers.AutoTokenizer.from_pretrained(chat)

    @torch.inference_mode()
    def card(messages: Conversation) -> list[float]:
        out = found(input_ids=families._ids(fast, messages), output_hidden_states=True)
        values: list[float] = head.summary(out.hidden_states[-1])[0, -1].tolist()
        return values

    spec = local_spec(str(tmp_path / "adapter"))
    assert spec.family == "head-in-weights"
    assert_every_turn_is_the_cards(Tiny(spec, card))


def test_the_template_beside_an_adapter_is_the_one_it_was_trained_with(chat: Path, tmp_path: Path) -> None:
    classifier(tmp_path / "adapter", chat)
    before = local_spec(str(tmp_path / "adapter"))
    tiny.tokenizer(tiny.PLAIN).save_pretrained(tmp_path / "adapter")
    spec = local_spec(str(tmp_path / "adapter"))
    assert spec.fingerprint != before.fingerprint
    renderer = LocalRewardModel(spec).renderer
    assert "<|im_start|>" not in renderer.text(families.conversations(1, seed=1)[0])  # type: ignore[union-attr]


def test_the_fingerprint_is_of_the_adapters_tensors_and_settings_and_not_of_a_place(
    chat: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    classifier(folder, chat)
    before = local_spec(str(folder)).fingerprint
    moved = chat.rename(tmp_path / "moved")
    edit(folder, base_model_name_or_path=str(moved))
    assert local_spec(str(folder)).fingerprint == before
    edit(folder, lora_alpha=32)
    assert local_spec(str(folder)).fingerprint != before
    edit(folder, lora_alpha=8)
    weights = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    doubled = {name: tensor * 2 for name, tensor in weights.items()}
    safetensors.torch.save_file(doubled, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    assert local_spec(str(folder)).fingerprint != before


def test_a_tensor_of_an_adapter_that_its_base_has_no_place_for_is_refused(chat: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    classifier(folder, chat)
    file = folder / "adapter_model.safetensors"
    weights = safetensors.torch.load_file(file)
    strange = "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"
    safetensors.torch.save_file({**weights, strange: torch.ones(4, 32)}, file, metadata={"format": "pt"})
    with pytest.raises(ModelFault, match=rf"its adapter holds {re.escape(strange)}, where its settings"):
        LocalRewardModel(local_spec(str(folder)))
    lost = next(name for name in weights if "layers.1" in name and "lora_B" in name)
    del weights[lost]
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelFault, match=rf"its adapter lacks {re.escape(lost)}|is not what the model was"):
        LocalRewardModel(local_spec(str(folder)))


def test_an_adapter_without_a_trained_head_is_refused(chat: Path, tmp_path: Path) -> None:
    adapted(transformers.AutoModelForCausalLM.from_pretrained(chat), tmp_path / "chat", "CAUSAL_LM")
    with pytest.raises(UserMistake, match=r"LoRA adapter .* of .*base, and no head that gives a score"):
        local_spec(str(tmp_path / "chat"))
    edit(tmp_path / "chat", task_type="TOKEN_CLS")
    with pytest.raises(UserMistake, match=r"it was trained as TOKEN_CLS"):
        local_spec(str(tmp_path / "chat"))
    edit(tmp_path / "chat", task_type="SEQ_CLS")
    with pytest.raises(UserMistake, match=r"holds no score\.weight, so the score would be noise"):
        local_spec(str(tmp_path / "chat"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "of the kind IA3, and only LoRA is merged here"),
        ({"base_model_name_or_path": None}, "of a base model that it does not name"),
        ({"base_model_name_or_path": "some/base"}, r"base of this LoRA adapter \(some/base\): the Hub"),
    ],
)
def test_an_adapter_that_cannot_be_merged_says_why(
    changes: dict[str, object], words: str, chat: Path, tmp_path: Path
) -> None:
    classifier(tmp_path / "adapter", chat)
    edit(tmp_path / "adapter", **changes)
    with pytest.raises(UserMistake, match=words):
        local_spec(str(tmp_path / "adapter"))


def test_pickled_weights_of_an_adapter_are_refused(chat: Path, tmp_path: Path) -> None:
    classifier(tmp_path / "adapter", chat)
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(UserMistake, match=r"its weights are expected in adapter_model\.safetensors"):
        local_spec(str(tmp_path / "adapter"))


def test_without_peft_an_adapter_is_named_with_its_base_and_the_way_on(
    chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier(tmp_path / "adapter", chat)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserMistake) as refusal:
        local_spec(str(tmp_path / "adapter"))
    for words in (f"a LoRA adapter (adapter_config.json) of {chat}", "assay[peft]", "merge_and_unload"):
        assert words in str(refusal.value)
