"""The operator's list of endpoints: what it may hold, and that no value of it is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from assay import endpoint_settings
from assay.config import Settings
from assay.errors import UserMistake
from assay.models import find_model
from assay.rewards.remote.endpoints import KINDS, backend_class, spec_of
from assay.schema import STEERLM_ATTRIBUTES

GOOD: dict[str, Any] = {
    "kind": "openai",
    "url": "https://integrate.api.nvidia.com/v1/",
    "model": "nvidia/nemotron-4-340b-reward",
    "attributes": ["helpfulness", "correctness"],
}


def settings(folder: Path, content: object) -> Settings:
    path = folder / "endpoints.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return Settings.model_construct(endpoints_file=path, home=folder)


def refusal(folder: Path, content: object) -> str:
    with pytest.raises(UserMistake) as refused:
        settings(folder, content).endpoints()
    error: BaseException | None = refused.value
    told = ""
    while error is not None:
        told += str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told


def test_an_endpoint_is_read_and_found_by_its_name(tmp_path: Path) -> None:
    operator = settings(tmp_path, {"nemotron": GOOD | {"key_variable": "NVIDIA_API_KEY"}})
    endpoint = operator.endpoints()["nemotron"]
    assert endpoint.url == "https://integrate.api.nvidia.com/v1"
    assert endpoint.attributes == endpoint.outputs == ("helpfulness", "correctness")
    spec = find_model("nemotron", settings=operator)
    assert spec.endpoint == endpoint
    assert spec.attributes == ("helpfulness", "correctness")
    assert any("no revision" in note for note in spec.notes)


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert Settings.model_construct(endpoints_file=None, home=tmp_path).endpoints() == {}
    assert settings(tmp_path, "").endpoints() == {}
    with pytest.raises(UserMistake, match=r"ASSAY_ENDPOINTS_FILE: .* cannot be read"):
        Settings.model_construct(endpoints_file=tmp_path / "none.yaml").endpoints()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "opnai"}, "kind: should be one of openai"),
        ({"url": "http://169.254.169.254/v1"}, "link-local"),
        ({"url": "https://me:CANARY@host/v1"}, "user name or password"),
        ({"url": "https://host/v1?key=CANARY"}, "? or #"),
        ({"url": None}, "url: input should be a valid string"),
        ({"attributes": []}, "attributes: list should have at least 1 item"),
        ({"attributes": ["CANARY"]}, "attributes: should be some of"),
        ({"attributes": ["quality", "quality"]}, "holds a name twice"),
        ({"api_key": "CANARY"}, "a key is named here, never given"),
        ({"Authorization": "Bearer CANARY"}, "a key is named here, never given"),
        ({"key_variable": "sk-CANARY"}, "is to be the name of an environment variable, not a key"),
        ({"key_variable": "A", "key_block": "b"}, "state one of them"),
        ({"key_variable": "A", "url": "http://host/v1"}, "travel unencrypted"),
        ({"request_per_minute": 5}, "did you mean 'requests_per_minute'?"),
        ({"requests_per_minute": 0}, "requests_per_minute: input should be greater than 0"),
        ({"in_flight": "CANARY"}, "in_flight: input should be a valid integer"),
        ({"kind": "tei"}, "tokenizer: is needed"),
        ({"kind": "sglang"}, "tokenizer: is needed"),
        ({"kind": "nemo-triton"}, "max_characters: is needed"),
        ({"max_tokens": 100}, "max_tokens: needs tokenizer"),
        ({"kind": "vllm-classify", "outputs": ["quality"]}, "correctness, helpfulness not among outputs"),
    ],
)
def test_a_wrong_endpoint_is_told_by_file_name_and_field_and_never_by_value(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    told = refusal(tmp_path, {"nemotron": GOOD | changes})
    assert f"{tmp_path / 'endpoints.yaml'}: nemotron: " in told
    assert said in told
    assert "CANARY" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "by name is expected"),
        ("nemotron: CANARY\n", "are expected below it"),
        ("a b c: {}\n", "an endpoint's name"),
        ("nemotron: {kind: [CANARY\n", "not YAML"),
        ("nemotron: !!python/object/apply:os.system [CANARY]\n", "not YAML"),
        ("nemotron: {kind: openai}\n", "url: is required"),
    ],
)
def test_a_file_that_is_no_list_of_endpoints_is_refused(tmp_path: Path, text: str, said: str) -> None:
    told = refusal(tmp_path, text)
    assert said in told
    assert "CANARY" not in told


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(tmp_path, {"nemotron": GOOD})
    monkeypatch.setenv("ASSAY_ENDPOINTS_FILE", str(tmp_path / "endpoints.yaml"))
    assert set(Settings.read().endpoints()) == {"nemotron"}


def test_the_fingerprint_says_which_model_answers_and_nothing_of_the_way_to_it(tmp_path: Path) -> None:
    def fingerprint(**changes: Any) -> str:
        endpoint = settings(tmp_path, {"any": GOOD | changes}).endpoints()["any"]
        return spec_of(endpoint).fingerprint

    same = fingerprint()
    for way in (
        {"url": "https://elsewhere.example/v1"},
        {"key_variable": "A"},
        {"key_block": "b"},
        {"requests_per_minute": 5, "tokens_per_minute": 7, "in_flight": 2},
        {"timeout_seconds": 1, "deadline_seconds": 2, "longest_wait_seconds": 3},
        {"price_per_request": 1, "price_per_million_tokens": 2, "currency": "EUR"},
    ):
        assert fingerprint(**way) == same
    different = [
        {"model": "other"},
        {"revision": "2"},
        {"attributes": ["correctness", "helpfulness"]},
        {"kind": "vllm-classify"},
        {"max_characters": 100},
        {"kind": "vllm-classify", "outputs": ["correctness", "helpfulness"]},
    ]
    found = [fingerprint(**changes) for changes in different]
    assert len({same, *found}) == len(found) + 1


def test_a_template_that_changes_changes_the_fingerprint(tmp_path: Path) -> None:
    def fingerprint(template: str) -> str:
        tiny.tokenizer(template).save_pretrained(tmp_path / "tokenizer")
        told = GOOD | {"kind": "tei", "tokenizer": "tokenizer", "max_tokens": 100}
        return spec_of(settings(tmp_path, {"any": told}).endpoints()["any"]).fingerprint

    assert fingerprint(tiny.CHATML) == fingerprint(tiny.CHATML) != fingerprint(tiny.LLAMA3)


def test_every_kind_has_its_backend(tmp_path: Path) -> None:
    for kind in KINDS:
        told = {"tokenizer": "t", "max_characters": 10} if kind != "openai" else {}
        endpoint = settings(tmp_path, {"any": GOOD | {"kind": kind} | told}).endpoints()["any"]
        assert backend_class(endpoint)
    assert endpoint.outputs == STEERLM_ATTRIBUTES


def test_an_operators_name_goes_before_the_catalogs(tmp_path: Path) -> None:
    assert find_model("starter", settings=settings(tmp_path, {"starter": GOOD})).endpoint is not None
    assert endpoint_settings.read_endpoints(tmp_path / "endpoints.yaml").keys() == {"starter"}
