"""A folder that is said to hold a published model is read as that model's card says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import tiny
import tiny_families as families
import torch

from assay.config.options import RunOptions, options_from, read_config_file
from assay.config.resolve import models_of
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.rewards.catalog import CATALOG
from assay.rewards.find import find_model
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.sizes import SIZES, size_in
from assay.rewards.spec import LocalSpec

QWEN = "nvidia/Qwen-2.5-Nemotron-32B-Reward"
LLAMA = "nvidia/Llama-3.3-Nemotron-70B-Reward-Multilingual"


def sized(folder: Path, claimed: str) -> Path:
    """The folder with the size in its config.json that the published model has."""
    config = json.loads((folder / "config.json").read_text())
    width, layers = SIZES[claimed]
    config |= {"hidden_size": width, "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tiny.reward_model(tmp_path / "model", attributes=("reward",), max_tokens=131_072)
    return sized(made, QWEN)


def test_what_a_card_says_is_known_of_the_folder(folder: Path) -> None:
    spec = local_spec(str(folder), ModelOptions(known_as=QWEN))
    entry = CATALOG[QWEN]
    assert (spec.dtype, spec.trained_tokens, spec.languages) == ("float16", 8192, ("en",))
    assert (spec.max_tokens, spec.attributes) == (entry.max_tokens, entry.attributes)
    assert spec.known_as == QWEN
    assert spec.notes == (f"{folder} is taken for {QWEN}, because --as, or its operator, says so.",)


def test_a_nemotron_in_a_folder_needs_no_family_then(tmp_path: Path) -> None:
    chat = tiny.reward_model(tmp_path / "chat", family="first-token-logit", max_tokens=131_072)
    spec = local_spec(str(sized(chat, LLAMA)), ModelOptions(known_as=LLAMA))
    assert (spec.family, spec.family_named, spec.dtype) == ("first-token-logit", False, "bfloat16")


def test_the_card_of_a_non_commercial_model_is_said_in_every_summary(folder: Path) -> None:
    math = sized(folder, "nvidia/AceMath-7B-RM")
    (licence, _) = local_spec(str(math), ModelOptions(known_as="nvidia/AceMath-7B-RM")).notes
    assert licence == "Its licence, CC-BY-NC-4.0, allows no commercial use."


def test_a_claim_that_the_files_contradict_is_refused(folder: Path, tmp_path: Path) -> None:
    for known_as, words in (
        (LLAMA, "is of the family first-token-logit, and .* is of the family sequence-classification"),
        ("infly/INF-ORM-Llama3.1-70B", "is of the family head-in-weights, and .* sequence-classification"),
        ("nvidia/Nemotron-4-340B-Reward", "has no weights that a folder could hold"),
        ("nvidia/Qwen-2.5-Nemotron-32B", f"has no such model.*did you mean '{QWEN}'"),
        ("starter", "has no such model"),
    ):
        with pytest.raises(UserMistake, match=rf"--as {known_as}: .*{words}"):
            local_spec(str(folder), ModelOptions(known_as=known_as))
    with pytest.raises(UserMistake, match=r"model starter is in the catalog itself"):
        local_spec("starter", ModelOptions(known_as=QWEN))
    value_head = families.head_in_weights(tmp_path / "v", "chatml").spec.folder
    with pytest.raises(UserMistake, match=r"--as .*: that model is of the family first-token-logit"):
        local_spec(value_head, ModelOptions(known_as=LLAMA))


def test_a_folder_of_another_size_is_not_that_model(folder: Path) -> None:
    for claimed in ("Skywork/Skywork-Reward-V2-Qwen3-8B", "nvidia/AceMath-72B-RM"):
        due = SIZES[claimed]
        words = (
            f"--as {claimed}: that model has {due.layers} layers and a width of {due.width:,}, and by its "
            f"config.json {folder} has 64 layers and a width of 5,120"
        )
        with pytest.raises(UserMistake, match=re.escape(words)):
            local_spec(str(folder), ModelOptions(known_as=claimed))


def test_the_size_of_every_published_model_is_known_or_said_to_be_unknown() -> None:
    with_weights = {name for name, entry in CATALOG.items() if not entry.service_only and name != "starter"}
    assert SIZES.keys() <= with_weights
    assert all(name.startswith("internlm/") for name in with_weights - SIZES.keys())


def test_an_adapter_is_held_against_the_claim_with_its_own_head(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra peft is not installed")
    base = tiny.reward_model(tmp_path / "base", family="first-token-logit", max_tokens=131_072)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(base), "task_type": "SEQ_CLS"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    head = {"base_model.model.score.weight": torch.ones(1, 5120)}
    safetensors.torch.save_file(head, adapter / "adapter_model.safetensors")
    # The base alone might be a Nemotron of 70 B, and is no classifier.
    assert local_spec(str(sized(base, LLAMA)), ModelOptions(known_as=LLAMA)).family == "first-token-logit"
    with pytest.raises(UserMistake, match=r"and .* is of the family sequence-classification"):
        local_spec(str(adapter), ModelOptions(known_as=LLAMA))
    with pytest.raises(UserMistake, match="that model has 64 layers and a width of 5,120"):
        local_spec(str(adapter), ModelOptions(known_as=QWEN))
    sized(base, QWEN)
    spec = local_spec(str(adapter), ModelOptions(known_as=QWEN))
    assert (spec.family, spec.known_as) == ("sequence-classification", QWEN)


def test_an_operator_says_which_model_a_folder_holds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASSAY_MODEL_FOLDERS", f"judge={folder}")
    monkeypatch.setenv("ASSAY_MODEL_NAMES", f"judge={QWEN}")
    spec = find_model("judge", models_of(Settings.read()))
    assert isinstance(spec, LocalSpec)
    assert (spec.name, spec.known_as, spec.trained_tokens) == ("judge", QWEN, 8192)
    for said, words in (
        ("judge=nvidia/Qwen", "ASSAY_MODEL_NAMES .* is not of the form NAME=MODEL; `assay models` lists"),
        (f"other={QWEN}", "names 'other', but ASSAY_MODEL_FOLDERS has no such folder"),
    ):
        monkeypatch.setenv("ASSAY_MODEL_NAMES", said)
        with pytest.raises(UserMistake, match=words):
            Settings.read()


def test_a_config_file_and_a_form_say_it_too(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"input: rows.jsonl\noutput: out\nmodel: /srv/judge\nas: {QWEN}\n")
    options = options_from(RunOptions, typed={}, filed=read_config_file(str(file), RunOptions))
    assert options.chosen_models()[0].options.known_as == QWEN
    form = RunOptions.model_json_schema()["properties"]
    choices = form["advanced"]["properties"]["as_"]["enum"]
    assert {QWEN, LLAMA} < set(choices)
    assert "starter" not in choices


def test_verify_holds_it_against_the_numbers_on_that_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.verify.checks import _published

    folder = tiny.reward_model(tmp_path / "tiny", attributes=("reward",), max_tokens=131_072)
    monkeypatch.setitem(SIZES, QWEN, size_in(json.loads((folder / "config.json").read_text())))
    spec = local_spec(str(folder), ModelOptions(known_as=QWEN, dtype="float32"))
    checks = list(_published(LocalRewardModel(spec), spec, spec.dtype))
    assert [check.passed for check in checks] == [False, False]
    assert "the card has 11.4297" in checks[0].measured
