"""A folder that is said to hold a published model is read as that model's card says."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_families as families

from assay.config.options import RunOptions, options_from, read_config_file
from assay.config.resolve import models_of
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.rewards.catalog import CATALOG
from assay.rewards.find import find_model
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.spec import LocalSpec

QWEN = "nvidia/Qwen-2.5-Nemotron-32B-Reward"
LLAMA = "nvidia/Llama-3.3-Nemotron-70B-Reward-Multilingual"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.reward_model(tmp_path / "model", attributes=("reward",), max_tokens=131_072)


def test_what_a_card_says_is_known_of_the_folder(folder: Path) -> None:
    spec = local_spec(str(folder), ModelOptions(known_as=QWEN))
    entry = CATALOG[QWEN]
    assert (spec.dtype, spec.trained_tokens, spec.languages) == ("float16", 8192, ("en",))
    assert (spec.max_tokens, spec.attributes) == (entry.max_tokens, entry.attributes)
    assert spec.known_as == QWEN
    assert spec.notes == (f"{folder} is taken for {QWEN}, because --as, or its operator, says so.",)


def test_a_nemotron_in_a_folder_needs_no_family_then(tmp_path: Path) -> None:
    chat = tiny.reward_model(tmp_path / "chat", family="first-token-logit", max_tokens=131_072)
    spec = local_spec(str(chat), ModelOptions(known_as=LLAMA))
    assert (spec.family, spec.family_named, spec.dtype) == ("first-token-logit", False, "bfloat16")


def test_the_card_of_a_non_commercial_model_is_said_in_every_summary(folder: Path) -> None:
    (licence, _) = local_spec(str(folder), ModelOptions(known_as="nvidia/AceMath-7B-RM")).notes
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
    assert options.of_the_model().known_as == QWEN
    choices = RunOptions.model_json_schema()["properties"]["as_"]["anyOf"][0]["enum"]
    assert {QWEN, LLAMA} < set(choices)
    assert "starter" not in choices


def test_verify_holds_it_against_the_numbers_on_that_card(folder: Path) -> None:
    from assay.verify.checks import _published

    spec = local_spec(str(folder), ModelOptions(known_as=QWEN, dtype="float32"))
    checks = list(_published(LocalRewardModel(spec), spec, spec.dtype))
    assert [check.passed for check in checks] == [False, False]
    assert "the card has 11.4297" in checks[0].measured
