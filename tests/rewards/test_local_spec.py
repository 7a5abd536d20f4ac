"""What is known of a model in a folder or on the Hub, what is assumed and said, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
import tiny
import tiny_families as families
from huggingface_hub import errors as hub_errors

from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import ATTRIBUTES, FLAGS
from assay.rewards.catalog import CATALOG
from assay.rewards.local_spec import local_spec
from assay.rewards.options import LoadOptions, ModelOptions
from assay.score.card_warnings import why_unknown


@pytest.fixture(scope="module", autouse=True)
def _modules_of_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    families.copy_code_to(tmp_path_factory.mktemp("modules"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.reward_model(tmp_path / "model")


@pytest.fixture
def appended(tmp_path: Path) -> Path:
    return Path(families.appended(tmp_path / "appended", "chatml").spec.folder)


def test_an_unknown_folder_is_probed_and_what_was_assumed_is_said(folder: Path) -> None:
    families.edit_config(folder, pad_token_id=None)
    spec = local_spec(str(folder))
    assert spec.notes == (
        f"{folder} is not in the catalog; assumed: sequence-classification (Qwen2ForSequenceClassification, "
        "no padding token (none is needed)), helpfulness, correctness, at most 512 tokens, float32.",
    )


def test_outputs_may_be_named_by_the_user(folder: Path) -> None:
    families.edit_config(folder, id2label={"0": "LABEL_0", "1": "LABEL_1"})
    spec = local_spec(
        str(folder),
        ModelOptions(
            attributes=(
                "helpfulness",
                "depth",
            )
        ),
    )
    assert spec.attributes == ("helpfulness", "depth")
    assert (
        spec.fingerprint
        != local_spec(
            str(folder),
            ModelOptions(
                attributes=(
                    "helpfulness",
                    "verbosity",
                )
            ),
        ).fingerprint
    )


def test_no_output_can_take_the_name_of_a_warning(folder: Path) -> None:
    flags = why_unknown(local_spec(str(folder)))
    assert tuple(flags) == FLAGS
    for flag in flags:
        with pytest.raises(UserMistake, match=f"'{flag}' cannot be an attribute's name"):
            local_spec(
                str(folder),
                ModelOptions(
                    attributes=(
                        "helpfulness",
                        flag,
                    )
                ),
            )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["helpfulness"], r"names 1 outputs \(helpfulness\), model .* has 2"),
        (["helpfulness", "helpfulness"], "a name is given twice"),
        (["helpfulness", "reason"], "'reason' cannot be an attribute's name"),
        (["helpfulness", "weighted_reward"], "'weighted_reward' cannot be an attribute's name"),
        (["helpfulness", "so good"], "'so good' cannot be an attribute's name"),
    ],
)
def test_names_that_do_not_fit_the_outputs_are_refused(folder: Path, given: list[str], words: str) -> None:
    with pytest.raises(UserMistake, match=words):
        local_spec(str(folder), ModelOptions(attributes=tuple(given)))


def test_outputs_that_nobody_named_are_refused_with_what_to_say(folder: Path) -> None:
    families.edit_config(folder, id2label={"0": "LABEL_0", "1": "LABEL_1"})
    with pytest.raises(UserMistake, match="say with --attributes what each is"):
        local_spec(str(folder))


def test_a_shorter_limit_may_be_asked_for_and_a_longer_one_not(folder: Path) -> None:
    assert local_spec(str(folder), ModelOptions(max_tokens=100)).max_tokens == 100
    assert (
        local_spec(str(folder), ModelOptions(max_tokens=100)).fingerprint
        != local_spec(str(folder)).fingerprint
    )
    with pytest.raises(UserMistake, match="takes 512 tokens at most"):
        local_spec(str(folder), ModelOptions(max_tokens=513))


def test_the_dtype_is_in_the_fingerprint_and_one_that_is_none_is_refused(folder: Path) -> None:
    assert (
        local_spec(str(folder), ModelOptions(dtype="bfloat16")).fingerprint
        != local_spec(str(folder)).fingerprint
    )
    with pytest.raises(UserMistake, match="--dtype int8: choose one of float32"):
        local_spec(str(folder), ModelOptions(dtype="int8"))  # type: ignore[arg-type]  # what is refused


def test_weights_make_a_column_and_change_no_fingerprint(folder: Path) -> None:
    plain = local_spec(str(folder))
    weighted = local_spec(str(folder), ModelOptions(factors={"helpfulness": 0.5, "correctness": 0.25}))
    assert weighted.columns == ("helpfulness", "correctness", "weighted_reward")
    assert plain.columns == plain.attributes == weighted.attributes
    assert weighted.fingerprint == plain.fingerprint
    with pytest.raises(UserMistake, match="given to verbosity"):
        local_spec(str(folder), ModelOptions(factors={"verbosity": 1.0}))


def test_a_model_that_is_only_served_says_so() -> None:
    with pytest.raises(UserMistake, match="configure an endpoint"):
        local_spec("nvidia/Nemotron-4-340B-Reward")
    assert CATALOG["nvidia/Nemotron-4-340B-Reward"].attributes == ATTRIBUTES


def test_a_model_without_a_chat_template_is_refused_unless_it_needs_none(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserMistake, match="no chat template"):
        local_spec(str(folder))
    assert families.pair(tmp_path / "pair").spec.family == "pair-classification"


def test_a_template_that_no_tokenizer_renders_with_is_refused_by_what_it_is(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    template.rename(folder / "chat_template.json")
    with pytest.raises(UserMistake, match=r"chat_template\.json, which is a processor's .*so a conversation"):
        local_spec(str(folder))
    (folder / "chat_template.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    named = [{"name": name, "template": tiny.CHATML} for name in ("tool_use", "rag")]
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": named}))
    with pytest.raises(UserMistake, match="templates that are called tool_use, rag, and none is the default"):
        local_spec(str(folder))
    named[1]["name"] = "default"
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": named}))
    assert local_spec(str(folder)).unseen == ()


def test_a_limit_within_text_config_is_the_models(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    limit = config.pop("max_position_embeddings")
    (folder / "config.json").write_text(
        json.dumps({**config, "text_config": {"max_position_embeddings": 333}})
    )
    assert (limit, local_spec(str(folder)).max_tokens) == (512, 333)
    with pytest.raises(UserMistake, match="takes 333 tokens at most"):
        local_spec(str(folder), ModelOptions(max_tokens=334))


def test_a_limit_that_no_file_states_is_the_one_that_is_given(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserMistake, match="states its limit; say with --max-tokens how many tokens it takes"):
        local_spec(str(folder))
    assert local_spec(str(folder), ModelOptions(max_tokens=77)).max_tokens == 77


# S3: code of a model's repository runs by the operator's setting and from a known commit alone.


def ran(folder: Path) -> Path:
    """A file that is there once the model's code has run."""
    mark = folder.parent / "ran"
    path = folder / "modeling_standin.py"
    path.write_text(f"open({str(mark)!r}, 'w')\n" + path.read_text())
    return mark


def test_code_of_a_model_does_not_run_unless_an_operator_trusts_it(appended: Path) -> None:
    mark = ran(appended)
    with pytest.raises(UserMistake, match="ASSAY_TRUST_REMOTE_CODE=true"):
        local_spec(str(appended))
    assert not mark.exists()


@pytest.mark.parametrize("place", ["model", "snapshots/main", f"elsewhere/{families.COMMIT}"])
def test_trusted_code_runs_from_a_commit_and_from_nowhere_else(
    appended: Path, tmp_path: Path, place: str
) -> None:
    moved = tmp_path / place
    moved.parent.mkdir(parents=True, exist_ok=True)
    appended.rename(moved)
    mark = ran(moved)
    with pytest.raises(UserMistake, match="40 digits of the commit hash"):
        local_spec(str(moved), loading=families.TRUSTED)
    assert not mark.exists()


def test_code_that_a_model_fetches_from_elsewhere_is_not_run(appended: Path) -> None:
    families.edit_config(appended, auto_map={"AutoModel": "somebody/else--modeling.InternLM2ForRewardModel"})
    with pytest.raises(UserMistake, match=r"another repository \(somebody/else--modeling"):
        local_spec(str(appended), loading=families.TRUSTED)


def test_trust_is_not_used_where_transformers_has_the_class(folder: Path) -> None:
    families.edit_config(folder, auto_map={"AutoModelForSequenceClassification": "modeling_x.Mine"})
    (folder / "modeling_x.py").write_text("raise SystemExit('ran')\n")
    assert not local_spec(str(folder), loading=families.TRUSTED).remote_code
    from assay.rewards.local.model import LocalRewardModel

    LocalRewardModel(local_spec(str(folder), loading=families.TRUSTED))


def test_the_fingerprint_changes_with_code_that_runs(appended: Path) -> None:
    before = local_spec(str(appended), loading=families.TRUSTED).fingerprint
    ran(appended)
    assert local_spec(str(appended), loading=families.TRUSTED).fingerprint != before


@pytest.mark.parametrize("where", ["__init__", "forward"])
def test_code_of_a_model_that_fails_is_reported_in_a_line(appended: Path, where: str) -> None:
    from assay.rewards.local.model import LocalRewardModel

    code = appended / "modeling_standin.py"
    start = {"__init__": "super().__init__(config)\n", "forward": "ends = "}[where]
    code.write_text(code.read_text().replace(start, f"self.gone_since_transformers_5()\n        {start}", 1))
    with pytest.raises(ModelFault, match=r"the code of its repository fails with transformers .*Error: "):
        LocalRewardModel(local_spec(str(appended), loading=families.TRUSTED))


def test_code_of_a_models_tokenizer_that_fails_is_reported_in_a_line(appended: Path) -> None:
    from assay.rewards.local.model import LocalRewardModel

    (appended / "tokenization_standin.py").write_text("import gone_since_transformers_5\n")
    settings = appended / "tokenizer_config.json"
    named = {"AutoTokenizer": [None, "tokenization_standin.Gone"]}
    settings.write_text(
        json.dumps({**json.loads(settings.read_text()), "auto_map": named, "tokenizer_class": "Gone"})
    )
    with pytest.raises(ModelFault, match=r"the code of its repository fails .*gone_since_transformers_5"):
        LocalRewardModel(local_spec(str(appended), loading=families.TRUSTED))


def test_an_appended_token_that_nothing_states_is_refused(appended: Path) -> None:
    config = json.loads((appended / "config.json").read_text())
    del config["reward_token_id"]
    (appended / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserMistake, match="states no reward_token_id"):
        local_spec(str(appended), loading=families.TRUSTED)


def test_a_gated_head_with_unknown_parts_is_refused_at_opening(tmp_path: Path) -> None:
    import safetensors.torch

    from assay.rewards.local.model import LocalRewardModel

    folder = Path(families.gated(tmp_path / "model", "chatml").spec.folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["second_gate.weight"] = weights["regression_layer.weight"].clone()
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFault, match=r"second_gate\.weight is no part of a head"):
        LocalRewardModel(local_spec(str(folder)))


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("reward_transform_matrix", None, "its weights lack reward_transform_matrix"),
        ("gating.logit_scale", (2,), r"do not fit each other .*scale \(2,\)"),
        ("regression_layer.weight", (19, 16), r"do not fit each other .*regression \(19, 16\)"),
        ("gating.layers.1.weight", (24,), "neither a linear layer nor a batch normalisation"),
        ("gating.layers.2.weight", None, r"gating\.layers\.2 is neither a linear layer nor"),
    ],
)
def test_a_gated_head_whose_parts_are_not_its_own_is_refused(
    tmp_path: Path, name: str, changed: tuple[int, ...] | None, words: str
) -> None:
    import safetensors.torch
    import torch

    from assay.rewards.local.model import LocalRewardModel

    folder = Path(families.gated(tmp_path / "model", "chatml").spec.folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights[name]
    if changed is not None:
        weights[name] = torch.ones(changed)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFault, match=words):
        LocalRewardModel(local_spec(str(folder)))


# The Hub, as it answers.


def answering(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def download(hub_id: str, **options: Any) -> str:
        calls.append({"hub_id": hub_id, **options})
        if isinstance(outcome, BaseException):
            raise outcome
        return str(outcome)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def hub_error(kind: type[hub_errors.HfHubHTTPError]) -> hub_errors.HfHubHTTPError:
    request = httpx2.Request("GET", "https://huggingface.co/api/models/owner/name")
    return kind("no", response=httpx2.Response(403, request=request))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (hub_errors.GatedRepoError, "is gated: accept its terms at https://huggingface.co/owner/name"),
        (hub_errors.RepositoryNotFoundError, "the Hub shows no owner/name"),
        (hub_errors.RevisionNotFoundError, "has no revision 'v9'"),
        (hub_errors.HfHubHTTPError, "the Hub says no to owner/name"),
    ],
)
def test_what_the_hub_refuses_comes_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, kind: type[hub_errors.HfHubHTTPError], words: str
) -> None:
    answering(monkeypatch, hub_error(kind))
    with pytest.raises(UserMistake, match=words):
        local_spec("owner/name", ModelOptions(revision="v9"))


def test_revision_and_token_reach_the_hub_and_the_token_is_named_never_given(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    calls = answering(monkeypatch, folder)
    monkeypatch.setenv("MY_HUB_TOKEN", "hf_secret")
    spec = local_spec(
        "owner/name", ModelOptions(revision="v2"), loading=LoadOptions(hub_token_variable="MY_HUB_TOKEN")
    )
    assert calls[0]["revision"] == "v2"
    assert calls[0]["token"] == "hf_secret"
    assert "*.py" not in calls[0]["allow_patterns"]
    assert not any("bin" in pattern for pattern in calls[0]["allow_patterns"])
    assert "hf_secret" not in repr(spec)


def test_a_token_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    calls = answering(monkeypatch, folder)
    monkeypatch.delenv("MY_HUB_TOKEN", raising=False)
    with pytest.raises(UserMistake, match="names MY_HUB_TOKEN, which is not set"):
        local_spec("owner/name", loading=LoadOptions(hub_token_variable="MY_HUB_TOKEN"))
    assert not calls


def test_a_revision_with_other_weights_has_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    answering(monkeypatch, folder)
    first = local_spec("owner/name", ModelOptions(revision="v1")).fingerprint
    answering(monkeypatch, tiny.reward_model(tmp_path / "other", seed=1))
    assert local_spec("owner/name", ModelOptions(revision="v2")).fingerprint != first


def test_a_revision_of_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UserMistake, match="--revision v2 is for models on the Hub"):
        local_spec(str(folder), ModelOptions(revision="v2"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"]
)
def test_a_file_that_is_a_fifo_or_leads_to_a_device_is_refused_at_once(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(UserMistake, match=rf"{name} cannot be read: it is a FIFO \(named pipe\)"):
        local_spec(str(folder))
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(UserMistake, match=rf"{name} cannot be read: it is a character device"):
        local_spec(str(folder))
