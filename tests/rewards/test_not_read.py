"""A number is a score only if somebody trained it to be one: what is refused, and the way on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import tiny
import tiny_families as families
import torch

from assay.config.resolve import models_of
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.rewards.find import find_model
from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.spec import LocalSpec


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """A chat model: *ForCausalLM and nothing else."""
    return tiny.reward_model(tmp_path / "chat", family="first-token-logit")


def test_a_chat_model_is_no_reward_model(chat: Path) -> None:
    with pytest.raises(UserMistake) as refusal:
        local_spec(str(chat))
    for words in (
        "Qwen2ForCausalLM",
        "a chat model",
        "a generative reward model",
        "a process reward model",
        "--family first-token-logit",
    ):
        assert words in str(refusal.value)


def test_a_family_that_is_named_is_used_and_said(chat: Path) -> None:
    spec = local_spec(str(chat), ModelOptions(family="first-token-logit"))
    assert (spec.family, spec.family_named) == ("first-token-logit", True)
    assert spec.notes[0] == f"{chat} is read as first-token-logit because --family, or its operator, says so."
    assert "assumed: reward," in spec.notes[1]


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("Qwen2ForProcessRewardModel", "a process reward model: it rates the steps"),
        ("Qwen2ForTokenClassification", "a process reward model: it rates the steps"),
        ("Qwen2ForPrmModel", "a process reward model: it rates the steps"),
        ("Qwen2ForRewardModel", r"those are read whose head has the layers score\.0 and score\.2"),
        ("T5ForConditionalGeneration", "a model that writes text"),
        ("SomethingNew", r"its architecture is SomethingNew; a reward model here is"),
    ],
)
def test_what_else_is_no_reward_model_of_ours_is_called_what_it_is(
    chat: Path, architecture: str, words: str
) -> None:
    families.edit_config(chat, architectures=[architecture])
    with pytest.raises(UserMistake, match=words):
        local_spec(str(chat))


def test_a_family_that_the_architecture_contradicts_is_refused(tmp_path: Path, chat: Path) -> None:
    classifier = tiny.reward_model(tmp_path / "model")
    with pytest.raises(UserMistake, match=r"is of the family sequence-classification, as its architecture"):
        local_spec(str(classifier), ModelOptions(family="first-token-logit"))
    assert not local_spec(str(classifier), ModelOptions(family="sequence-classification")).family_named
    with pytest.raises(UserMistake, match=r"--family gated-objectives: model .* a chat model"):
        local_spec(str(chat), ModelOptions(family="gated-objectives"))


def test_an_encoder_is_not_told_to_add_a_template(tmp_path: Path) -> None:
    folder = Path(families.pair(tmp_path / "model").spec.folder)
    families.edit_config(folder, architectures=["ElectraForSequenceClassification"])
    with pytest.raises(UserMistake, match="it is an encoder"):
        local_spec(str(folder))


@pytest.mark.parametrize(
    "name", ["score.bias", "v_head.summary.weight", "model.layers.0.q_proj.lora_A.weight"]
)
def test_a_classifiers_tensors_that_no_layer_takes_are_refused_before_it_is_opened(
    name: str, tmp_path: Path
) -> None:
    folder = tiny.reward_model(tmp_path / "model", attributes=("reward",))
    file = folder / "model.safetensors"
    tensors = {**safetensors.torch.load_file(file), name: torch.ones(1)}
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserMistake, match=rf"{name}, which no layer of sequence-classification takes"):
        local_spec(str(folder))


def test_outputs_that_have_no_names_are_said_to_have_none(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserMistake, match=r"2 outputs and its config\.json names none of them; say with"):
        local_spec(str(folder))


# The operator says it of a folder.


def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: str, families: str) -> Settings:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASSAY_MODEL_FOLDERS", folders)
    monkeypatch.setenv("ASSAY_MODEL_FAMILIES", families)
    return Settings.read()


def test_an_operator_names_the_family_of_a_folder(
    tmp_path: Path, chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny.reward_model(tmp_path / "other")
    settings = operator(tmp_path, monkeypatch, f"nemo={chat}:judge={other}", "nemo=first-token-logit")
    spec = find_model("nemo", models_of(settings))
    assert isinstance(spec, LocalSpec)
    assert (spec.name, spec.family, spec.family_named) == ("nemo", "first-token-logit", True)
    assert find_model("judge", models_of(settings)).reading.family == "sequence-classification"


@pytest.mark.parametrize(
    ("families", "words"),
    [
        (
            "nemo=first-token",
            r"ASSAY_MODEL_FAMILIES .* is not of the form NAME=FAMILY.*did you mean 'first-token-logit'",
        ),
        ("nemo", "is not of the form NAME=FAMILY"),
        ("nmo=first-token-logit", r"has no such folder.*did you mean 'nemo'"),
        ("nemo=first-token-logit:nemo=first-token-logit", "names nemo twice"),
    ],
)
def test_families_that_fit_no_folder_are_refused(
    tmp_path: Path, chat: Path, monkeypatch: pytest.MonkeyPatch, families: str, words: str
) -> None:
    with pytest.raises(UserMistake, match=words):
        operator(tmp_path, monkeypatch, f"nemo={chat}", families)
