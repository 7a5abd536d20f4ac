"""Heads that lie in the weights: every kind that is published is computed, and nothing else is guessed at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny
import tiny_families as families
import torch
from tiny_families import Tiny

from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import Message, turn_positions
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.protocol import Request

TOLERANCE = 1e-5


def assert_every_turn_is_the_cards(built: Tiny, *, talks: int = 6) -> None:
    conversations = families.conversations(talks, seed=31)
    model = LocalRewardModel(built.spec, batch_tokens=500)
    requests = [Request(one, tuple(range(len(turn_positions(one))))) for one in conversations]
    compared = 0
    for conversation, outcomes in zip(conversations, model.score(requests), strict=True):
        for position, outcome in zip(turn_positions(conversation), outcomes, strict=True):
            assert outcome.values is not None, outcome.reason
            expected = built.card(conversation[: position + 1])
            for value, reference in zip(outcome.values, expected, strict=True):
                assert abs(value - reference) <= TOLERANCE * max(1.0, abs(reference))
            compared += 1
    assert compared > talks


# LLaMA-Factory, TRL, and a classifier's head in a causal model.


@pytest.mark.slow
@pytest.mark.parametrize("beside", ["value_head.safetensors", None])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Gemma2", "GPTNeoX"])
def test_a_value_head_is_read_beside_the_model_or_in_its_file(
    kind: str, beside: str | None, tmp_path: Path
) -> None:
    built = families.head_in_weights(tmp_path / "model", "chatml", kind=kind, beside=beside)
    assert (built.spec.family, built.spec.attributes) == ("head-in-weights", ("reward",))
    assert_every_turn_is_the_cards(built)


@pytest.mark.slow
def test_a_value_head_without_a_bias_is_read(tmp_path: Path) -> None:
    assert_every_turn_is_the_cards(families.head_in_weights(tmp_path / "model", "llama3", bias=False))


@pytest.mark.slow
@pytest.mark.parametrize("bias", [False, True])
def test_a_classifiers_head_in_a_causal_models_file_is_read(bias: bool, tmp_path: Path) -> None:
    built = families.head_in_weights(tmp_path / "model", "chatml", prefix="score", beside=None, bias=bias)
    assert_every_turn_is_the_cards(built)


@pytest.mark.slow
def test_outputs_that_config_names_are_the_attributes(tmp_path: Path) -> None:
    named = {str(place): name for place, name in enumerate(families.HELPSTEER)}
    built = families.head_in_weights(
        tmp_path / "model", "chatml", prefix="score", beside=None, outputs=5, id2label=named
    )
    assert built.spec.attributes == families.HELPSTEER
    assert_every_turn_is_the_cards(built)


def test_two_outputs_without_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"2 outputs and its config\.json names none of them"):
        families.head_in_weights(tmp_path / "model", "chatml", prefix="score", beside=None, outputs=2)


def test_every_summary_says_what_was_assumed_of_a_value_head(tmp_path: Path) -> None:
    spec = families.head_in_weights(tmp_path / "model", "chatml").spec
    assumed, critic = spec.notes
    assert "head-in-weights (LlamaForCausalLM, v_head.summary: linear 32 to 1)" in assumed
    assert "trained with PPO" in critic


def test_a_family_that_is_named_does_not_get_past_a_head(tmp_path: Path) -> None:
    folder = families.head_in_weights(tmp_path / "model", "chatml").spec.folder
    with pytest.raises(
        UserMistake, match=r"as its weights show \(v_head\.summary: linear 32 to 1\); leave it"
    ):
        local_spec(folder, ModelOptions(family="first-token-logit"))


# What does not fit is refused by the tensor's name.


def with_head(folder: Path, tensors: dict[str, torch.Tensor], file: str = "value_head.safetensors") -> Path:
    """The folder of a causal model with these tensors in that file, in place of what was there."""
    tiny.reward_model(folder, family="first-token-logit")
    held = safetensors.torch.load_file(folder / file) if (folder / file).exists() else {}
    safetensors.torch.save_file({**held, **tensors}, folder / file, metadata={"format": "pt"})
    return folder


UNFIT = {
    "a width that is not the model's": (
        {"v_head.summary.weight": torch.ones(1, 16)},
        "v_head.summary.weight takes 16 numbers, and what comes before it gives 32",
    ),
    "a value head of two numbers": (
        {"v_head.summary.weight": torch.ones(2, 32), "v_head.summary.bias": torch.ones(2)},
        "v_head.summary.weight gives 2 numbers, where such a head gives one",
    ),
    "a bias that is not the weight's": (
        {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.ones(3)},
        "v_head.summary.bias has 3 numbers, and v_head.summary.weight gives 1",
    ),
    "a bias alone": (
        {"v_head.summary.bias": torch.ones(1)},
        "its weights hold v_head.summary.bias and no v_head.summary.weight",
    ),
    "a weight without rows": (
        {"v_head.summary.weight": torch.ones(32)},
        "v_head.summary.weight has the shape [32]; a linear layer's weight has 2 dimensions",
    ),
    "layers that do not fit each other": (
        {"score.0.weight": torch.ones(8, 32), "score.2.weight": torch.ones(1, 7)},
        "score.2.weight takes 7 numbers, and what comes before it gives 8",
    ),
    "two modules between layers": (
        {"score.0.weight": torch.ones(8, 32), "score.3.weight": torch.ones(1, 8)},
        "its head has score.0.weight, score.3.weight; known here are one linear layer (score.weight), and",
    ),
    "one layer and several": (
        {"score.weight": torch.ones(1, 32), "score.0.weight": torch.ones(8, 32)},
        "its head has score.0.weight, score.weight; known here are",
    ),
    "another part of a layer": (
        {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.running_mean": torch.ones(1)},
        "v_head.summary.running_mean is no part of a head that is known here",
    ),
    "two heads": (
        {"v_head.summary.weight": torch.ones(1, 32), "score.weight": torch.ones(1, 32)},
        "its weights hold two heads, score.weight and v_head.summary.weight",
    ),
    "a head that no causal model is known to have": (
        {"v_head.weight": torch.ones(1, 32)},
        "its weights hold v_head: linear 32 to 1, which is no head that is known of Qwen2ForCausalLM",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_head_that_does_not_fit_is_refused_by_the_tensors_name(case: str, tmp_path: Path) -> None:
    tensors, words = UNFIT[case]
    for family in (None, "first-token-logit"):
        with pytest.raises(UserMistake, match=re.escape(words)):
            local_spec(str(with_head(tmp_path / "model", tensors)), ModelOptions(family=family))


def test_a_head_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = with_head(tmp_path / "model", {"v_head.summary.weight": torch.ones(1, 32)})
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["v_head.summary.weight"] = torch.zeros(1, 32)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserMistake, match=r"weight is in model\.safetensors and in value_head\.safetensors"):
        local_spec(str(folder))


def test_every_tensor_of_a_heads_file_is_accounted_for(tmp_path: Path) -> None:
    folder = with_head(
        tmp_path / "model",
        {"v_head.summary.weight": torch.ones(1, 32), "model.layers.0.mlp.up_proj.weight": torch.ones(64, 32)},
    )
    with pytest.raises(ModelFault, match=r"model\.layers\.0\.mlp\.up_proj\.weight, which no layer of"):
        LocalRewardModel(local_spec(str(folder)))


def test_a_pickled_value_head_is_said_to_be_one(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model", family="first-token-logit")
    (folder / "value_head.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(UserMistake, match=r"value_head\.bin holds its head as a pickle"):
        local_spec(str(folder))


def test_another_head_is_another_fingerprint(tmp_path: Path) -> None:
    before = families.head_in_weights(tmp_path / "model", "chatml").spec
    file = tmp_path / "model" / "value_head.safetensors"
    doubled = {name: tensor * 2 for name, tensor in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(doubled, file)
    assert local_spec(str(tmp_path / "model")).fingerprint != before.fingerprint


def test_a_score_depends_on_the_head_alone_at_the_last_token(tmp_path: Path) -> None:
    folder = families.head_in_weights(tmp_path / "model", "chatml").spec.folder
    file = Path(folder) / "value_head.safetensors"
    safetensors.torch.save_file(
        {"v_head.summary.weight": torch.zeros(1, 32), "v_head.summary.bias": torch.tensor([2.5])}, file
    )
    talk = (Message("user", "Hi"), Message("assistant", "Hello."))
    ((outcome,),) = LocalRewardModel(local_spec(folder)).score([Request(talk, (0,))])
    assert outcome.values == (2.5,)


# Heads of several layers.


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(24,), (24, 16)])
@pytest.mark.parametrize("architecture", ["GRewardModel", "LlamaForCausalLM"])
def test_a_value_head_of_several_layers_is_read(
    architecture: str, hidden: tuple[int, ...], tmp_path: Path
) -> None:
    built = families.head_in_weights(
        tmp_path / "model", "llama3", hidden=hidden, beside=None, architecture=architecture
    )
    assert built.spec.family == "head-in-weights"
    assert_every_turn_is_the_cards(built)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "kind", "settings"),
    [
        ("INFORMForSequenceClassification", "Llama", {}),
        ("LlamaForSequenceClassification", "Llama", {}),
        (
            "Qwen2ForRewardModel",
            "Qwen2",
            {
                "model_type": "qwen2_rm",
                "pad_token_id": None,
                "auto_map": {
                    "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
                    "AutoModel": "modeling_qwen2_rm.Qwen2ForRewardModel",
                },
            },
        ),
    ],
)
def test_two_layers_named_score_are_read_at_the_last_token(
    architecture: str, kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    built = families.head_in_weights(
        tmp_path / "model",
        "chatml",
        kind=kind,
        hidden=(32,),
        prefix="score",
        beside=None,
        architecture=architecture,
        **settings,
    )
    assert (built.spec.family, built.spec.attributes) == ("head-in-weights", ("reward",))
    assert "score: linear 32 to 32, ReLU, linear 32 to 1" in built.spec.notes[0]
    assert_every_turn_is_the_cards(built)


def test_a_process_reward_model_under_a_reward_models_architecture_is_refused(tmp_path: Path) -> None:
    two_classes: dict[str, Any] = {"hidden": (32,), "prefix": "score", "beside": None, "outputs": 2}
    with pytest.raises(UserMistake, match=r"score\.2\.weight gives 2 numbers, where such a head gives one"):
        families.head_in_weights(
            tmp_path / "two", "chatml", architecture="Qwen2ForRewardModel", **two_classes
        )
    for number, architecture in enumerate(("Qwen2ForRewardModel", "Qwen2ForPrmModel")):
        with pytest.raises(UserMistake, match=r"rate the steps of a solution|it rates the steps"):
            families.head_in_weights(tmp_path / str(number), "chatml", architecture=architecture)
    one_number: dict[str, Any] = {**two_classes, "outputs": 1}
    named: list[tuple[str, dict[str, Any]]] = [
        ("o1-Open-PRM-1.5B", {}),
        ("any", {"_name_or_path": "Skywork/Open-PRM"}),
    ]
    for folder, settings in named:
        with pytest.raises(UserMistake, match=r"by its name \(.*PRM.*\) it is a process reward model"):
            families.head_in_weights(
                tmp_path / folder, "chatml", architecture="Qwen2ForRewardModel", **one_number, **settings
            )


@pytest.mark.slow
def test_padding_that_the_template_writes_is_two_numbers_until_somebody_chooses(tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "hidden": (32,),
        "prefix": "score",
        "beside": None,
        "architecture": "INFORMForSequenceClassification",
    }
    built = families.head_in_weights(tmp_path / "model", "chatml", **shape)
    ids = tiny.tokenizer("").convert_tokens_to_ids("<|im_end|>")
    families.edit_config(tmp_path / "model", pad_token_id=ids)
    (remark,) = LocalRewardModel(local_spec(built.spec.folder)).remarks
    assert "at the last token" in remark.text
    assert "before the first padding token" in remark.text
    chosen = local_spec(built.spec.folder, ModelOptions(read_at="last-token"))
    assert LocalRewardModel(chosen).remarks == ()
    assert_every_turn_is_the_cards(Tiny(chosen, built.card))


# Decision-Tree-Reward: five ratings by a linear layer with a bias.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "Gemma2"])
def test_decision_tree_rewards_ratings_are_helpsteers_five(kind: str, tmp_path: Path) -> None:
    built = families.head_in_weights(
        tmp_path / "model",
        "llama3",
        kind=kind,
        prefix="score",
        beside=None,
        outputs=5,
        architecture=f"{kind}ForDecisionTreeRewardModel",
        id2label={str(place): name for place, name in enumerate(families.HELPSTEER)},
    )
    (tmp_path / "model" / "decision_tree.pkl").write_bytes(b"\x80\x04N.")
    assert built.spec.attributes == families.HELPSTEER
    assert_every_turn_is_the_cards(built)


# Athene: an appended token.


@pytest.mark.slow
def test_a_head_on_an_appended_cls_token_needs_that_token(tmp_path: Path) -> None:
    built = families.appended_cls(tmp_path / "model", "llama3")
    assert_every_turn_is_the_cards(built)
    settings = tmp_path / "model" / "tokenizer_config.json"
    named = json.loads(settings.read_text())
    settings.write_text(json.dumps({**named, "cls_token": "<|nobody|>"}))
    with pytest.raises(
        UserMistake, match=r"cls_token '<\|nobody\|>', at which its head is read, is no added"
    ):
        local_spec(str(tmp_path / "model"))
    del named["cls_token"]
    settings.write_text(json.dumps(named))
    with pytest.raises(UserMistake, match="names no cls_token"):
        local_spec(str(tmp_path / "model"))
