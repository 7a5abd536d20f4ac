"""Every tensor in a model's files is accounted for, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import tiny
import tiny_families as families
import torch

from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import Message
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.local_spec import local_spec
from assay.rewards.options import ModelOptions
from assay.rewards.protocol import Request

TALK = Request((Message("user", "Hi"), Message("assistant", "Hello.")), (0,))


@pytest.fixture(autouse=True)
def _modules_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def with_tensors(folder: Path, **more: torch.Tensor) -> None:
    """Put tensors into the model's file; a name's dots are written as ``__``."""
    file = folder / "model.safetensors"
    named = {name.replace("__", "."): tensor for name, tensor in more.items()}
    safetensors.torch.save_file(
        {**safetensors.torch.load_file(file), **named}, file, metadata={"format": "pt"}
    )


def opened(folder: Path, family: str | None = None) -> LocalRewardModel:
    return LocalRewardModel(local_spec(str(folder), ModelOptions(family=family), families.TRUSTED))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "score__bias",
        "model__layers__0__self_attn__q_proj__lora_A__weight",
        "model__layers__7__self_attn__q_proj__weight",
        "value_head__weight",
        # A mask has four dimensions; this is no mask.
        "model__layers__0__attn__bias",
    ],
)
@pytest.mark.parametrize("family", [name for name in families.FAMILIES if name != "pair-classification"])
def test_a_tensor_that_no_layer_takes_is_refused_by_name(family: str, name: str, tmp_path: Path) -> None:
    folder = Path(families.FAMILIES[family](tmp_path / "model", "chatml").spec.folder)
    with_tensors(folder, **{name: torch.full((1,), 7.5)})
    last = name.replace("__", ".").removeprefix("model.")
    options = {"family": family} if family == "first-token-logit" else {}
    # What looks like a head is found before the model is opened.
    words = rf"{last}(, which no layer of| is no part of a head| and no score\.weight| and v_head)"
    with pytest.raises((ModelFault, UserMistake), match=words):
        opened(folder, **options)


def test_an_encoders_tensors_are_accounted_for_as_well(tmp_path: Path) -> None:
    folder = Path(families.pair(tmp_path / "model").spec.folder)
    with_tensors(folder, second_classifier__weight=torch.ones(1, 32))
    with pytest.raises(ModelFault, match=r"second_classifier\.weight, which no layer of pair-classification"):
        opened(folder)


HARMLESS: dict[str, Callable[[], torch.Tensor]] = {
    "model__layers__0__self_attn__rotary_emb__inv_freq": lambda: torch.ones(4),
    "lm_head__weight": lambda: torch.ones(620, 32),
    "model__layers__0__attn__bias": lambda: torch.ones(1, 1, 8, 8),
    "model__layers__0__attention__masked_bias": lambda: torch.tensor(-1e9),
    "model__embeddings__position_ids": lambda: torch.arange(8)[None],
}


def test_tensors_that_are_known_to_do_no_harm_do_none(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    before = LocalRewardModel(tiny.spec(folder)).score([TALK])
    with_tensors(folder, **{name: tensor() for name, tensor in HARMLESS.items()})
    assert LocalRewardModel(tiny.spec(folder)).score([TALK]) == before


@pytest.mark.parametrize("kind", ["GPT2", "GPTNeoX"])
def test_old_checkpoints_with_a_mask_in_them_are_read(kind: str, tmp_path: Path) -> None:
    import transformers

    fast = tiny.tokenizer(tiny.CHATML)
    shape = {
        "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
        "GPTNeoX": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    }[kind]
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(fast), num_labels=1, bos_token_id=None, eos_token_id=None, pad_token_id=0, **shape
    )
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    place = {"GPT2": "transformer.h.0.attn", "GPTNeoX": "gpt_neox.layers.0.attention"}[kind]
    mask = torch.tril(torch.ones(1, 1, 16, 16, dtype=torch.bool))
    with_tensors(folder, **{f"{place}.bias": mask, f"{place}.masked_bias": torch.tensor(-1e9)})
    ((outcome,),) = opened(folder).score([TALK])
    assert outcome.values is not None


def test_a_file_of_weights_that_is_not_loaded_is_refused(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    safetensors.torch.save_file(
        {"v_head.summary.weight": torch.ones(1, 32)}, folder / "value_head.safetensors"
    )
    with pytest.raises(
        ModelFault, match=r"value_head\.safetensors \(v_head\.summary\.weight, …\) lies beside"
    ):
        opened(folder)
    (folder / "value_head.safetensors").rename(folder / "consolidated.safetensors")
    opened(folder)


def test_files_that_an_index_names_are_all_loaded(tmp_path: Path) -> None:
    import transformers

    folder = tiny.reward_model(tmp_path / "model")
    before = LocalRewardModel(tiny.spec(folder)).score([TALK])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert LocalRewardModel(tiny.spec(folder)).score([TALK]) == before


@pytest.mark.parametrize("missing", ["score.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_tensor_that_the_files_lack_is_refused_by_name(missing: str, tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights[missing]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFault, match=rf"its weights lack {missing}.*every score would be noise"):
        opened(folder)


def test_a_padding_token_beyond_the_embedding_does_no_harm(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    before = LocalRewardModel(tiny.spec(folder)).score([TALK])
    families.edit_config(folder, pad_token_id=100_000)
    assert LocalRewardModel(tiny.spec(folder)).score([TALK]) == before


def test_a_config_that_makes_no_model_is_a_line(tmp_path: Path) -> None:
    folder = tiny.reward_model(tmp_path / "model")
    families.edit_config(folder, num_attention_heads=0)
    with pytest.raises(ModelFault, match=r"model .*: .*zero"):
        opened(folder)
