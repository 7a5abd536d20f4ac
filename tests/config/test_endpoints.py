"""The operator's list of endpoints: what it may hold, and that no value of it is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tiny
import yaml

from assay.config import endpoints as endpoint_settings
from assay.config.resolve import models_of
from assay.config.settings import Settings
from assay.core.errors import UserMistake
from assay.core.schema import ATTRIBUTES
from assay.rewards.find import find_model
from assay.rewards.protocol import TurnScore
from assay.rewards.remote.endpoints import KINDS, backend_class, served_spec
from assay.rewards.spec import LocalSpec, ServedSpec
from assay.score.store import ScoreStore, nameless_scores
from assay.storage.home import Home

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
    message = ""
    while error is not None:
        message += str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return message


def test_an_endpoint_is_read_and_found_by_its_name(tmp_path: Path) -> None:
    operator = settings(tmp_path, {"nemotron": GOOD | {"key_variable": "NVIDIA_API_KEY"}})
    endpoint = operator.endpoints()["nemotron"]
    assert endpoint.url == "https://integrate.api.nvidia.com/v1"
    assert endpoint.attributes == endpoint.outputs == ("helpfulness", "correctness")
    spec = find_model("nemotron", models_of(operator))
    assert isinstance(spec, ServedSpec)
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
        ({"api_key": "CANARY"}, "the file must not hold a key"),
        ({"Authorization": "Bearer CANARY"}, "the file must not hold a key"),
        ({"key_variable": "sk-CANARY"}, "must be the name of an environment variable, not a key"),
        ({"key_variable": "A", "key_block": "b"}, "state one of them"),
        ({"key_variable": "A", "url": "http://host/v1"}, "travel unencrypted"),
        ({"request_per_minute": 5}, "did you mean 'requests_per_minute'?"),
        ({"requests_per_minute": 0}, "requests_per_minute: input should be greater than 0"),
        ({"in_flight": "CANARY"}, "in_flight: input should be a valid integer"),
        ({"kind": "tei"}, "tokenizer: is needed"),
        ({"kind": "sglang"}, "tokenizer: is needed"),
        ({"kind": "nemo-triton"}, "max_characters: is needed"),
        ({"max_tokens": 100}, "max_tokens: needs a tokenizer"),
        ({"kind": "vllm-classify", "outputs": ["quality"]}, "correctness, helpfulness must be among outputs"),
    ],
)
def test_a_wrong_endpoint_is_reported_by_file_name_and_field_and_never_by_value(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    message = refusal(tmp_path, {"nemotron": GOOD | changes})
    assert f"{tmp_path / 'endpoints.yaml'}: nemotron: " in message
    assert said in message
    assert "CANARY" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "must be a list of endpoints by name"),
        ("nemotron: CANARY\n", "must hold kind, url, model and attributes"),
        ("a b c: {}\n", "an endpoint's name"),
        ("nemotron: {kind: [CANARY\n", "not YAML"),
        ("nemotron: !!python/object/apply:os.system [CANARY]\n", "not YAML"),
        ("nemotron: {kind: openai}\n", "url: is required"),
        pytest.param("nemotron:\n " + "- " * 50_000 + "CANARY", "not YAML", id="50,000 dashes"),
        pytest.param("a: b\nnemotron: {in_flight: 1" + "1" * 5000 + "}", ":2: not YAML", id="5,000 digits"),
        ("nemotron: {revision: !!bool CANARY}", ":1: not YAML"),
        ("nemotron: {3: CANARY}", "the name of a field must be a word"),
    ],
)
def test_a_file_that_is_no_list_of_endpoints_is_refused(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(tmp_path, text)
    assert said in message
    assert "CANARY" not in message


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(tmp_path, {"nemotron": GOOD})
    monkeypatch.setenv("ASSAY_ENDPOINTS_FILE", str(tmp_path / "endpoints.yaml"))
    assert set(Settings.read().endpoints()) == {"nemotron"}


def test_the_fingerprint_says_which_model_answers_and_nothing_of_the_way_to_it(tmp_path: Path) -> None:
    def fingerprint(**changes: Any) -> str:
        endpoint = settings(tmp_path, {"any": GOOD | changes}).endpoints()["any"]
        return served_spec(endpoint).fingerprint

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
    different: list[dict[str, Any]] = [
        {"model": "other"},
        {"revision": "2"},
        {"attributes": ["correctness", "helpfulness"]},
        {"kind": "vllm-classify"},
        {"max_characters": 100},
        {"kind": "vllm-classify", "outputs": ["correctness", "helpfulness"]},
    ]
    found = [fingerprint(**changes) for changes in different]
    assert len({same, *found}) == len(found) + 1


#: Of a service of NeMo's kind without a revision, before its name was in it.
NAMELESS_FINGERPRINT = "2321180f93d2065e45476d41e8675ded"
NAMELESS: dict[str, dict[str, Any]] = {
    kind: {**GOOD, "kind": kind, **({"tokenizer": "t"} if KINDS[kind].needs_tokenizer else {})}
    for kind in KINDS
}
NAMELESS["nemo-triton"] |= {"model": "reward_model", "max_characters": 9000}


def two(folder: Path, kind: str, **changes: Any) -> Settings:
    """An operator with two services of that kind and one model's name, at two addresses."""
    tiny.tokenizer(tiny.CHATML).save_pretrained(folder / "t")
    given = NAMELESS[kind] | changes
    return settings(
        folder,
        {"a": given | {"url": "http://127.0.0.1:8001"}, "b": given | {"url": "http://127.0.0.1:8002"}},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_two_services_never_share_scores_unasked(tmp_path: Path, kind: str) -> None:
    operator = two(tmp_path, kind)
    if KINDS[kind].names_no_model:
        first, second = (find_model(name, models_of(operator)).fingerprint for name in "ab")
        assert first != second
        return
    for name in "ab":
        with pytest.raises(UserMistake, match=r"endpoints \w and \w differ only in their address"):
            find_model(name, models_of(operator))


@pytest.mark.parametrize("kind", KINDS)
def test_services_share_scores_where_one_revision_is_stated_for_both_and_say_so(
    tmp_path: Path, kind: str
) -> None:
    operator = two(tmp_path, kind, revision="2026-01")
    first, second = (find_model(name, models_of(operator)) for name in "ab")
    assert first.fingerprint == second.fingerprint
    assert any("a shares its scores with b" in note for note in first.notes)


def test_one_address_by_two_names_is_one_service(tmp_path: Path) -> None:
    listed = {"a": GOOD, "b": GOOD | {"url": "HTTPS://Integrate.api.nvidia.com:443/v1", "in_flight": 2}}
    operator = settings(tmp_path, listed)
    first, second = (find_model(name, models_of(operator)) for name in "ab")
    assert first.fingerprint == second.fingerprint
    assert any("shares its scores with b" in note for note in first.notes)


def test_an_unrelated_model_is_not_refused_for_two_services_that_are_alike(tmp_path: Path) -> None:
    two(tmp_path, "openai")
    listed = yaml.safe_load((tmp_path / "endpoints.yaml").read_text())
    operator = settings(tmp_path, listed | {"c": GOOD | {"model": "another"}})
    assert isinstance(find_model("c", models_of(operator)), ServedSpec)
    assert isinstance(find_model("starter", models_of(operator)), LocalSpec)


def test_a_service_whose_models_name_says_nothing_goes_by_its_own_until_it_has_a_revision(
    tmp_path: Path,
) -> None:
    def fingerprint(name: str, **changes: Any) -> str:
        return served_spec(
            settings(tmp_path, {name: NAMELESS["nemo-triton"] | changes}).endpoints()[name]
        ).fingerprint

    assert fingerprint("a") == fingerprint("a", url="https://elsewhere.example")
    assert fingerprint("a") != fingerprint("renamed")
    assert fingerprint("a", revision="1") == fingerprint("renamed", revision="1")
    # Of a run before names were in it: what is kept under it may be of any such service.
    assert fingerprint("a") != NAMELESS_FINGERPRINT
    endpoint = settings(tmp_path, {"a": NAMELESS["nemo-triton"]}).endpoints()["a"]
    assert served_spec(endpoint).former_fingerprint == NAMELESS_FINGERPRINT


def test_scores_from_before_names_counted_are_reported_and_can_be_claimed(tmp_path: Path) -> None:
    operator = settings(tmp_path, {"a": NAMELESS["nemo-triton"]})
    model = find_model("a", models_of(operator))
    home = Home(tmp_path / "home")
    assert nameless_scores(model, home) is None
    score = TurnScore((1.0, 2.0))
    ScoreStore(home, NAMELESS_FINGERPRINT, model.attributes).write({b"k" * 16: score})
    message = nameless_scores(model, home)
    assert message is not None
    own = ScoreStore(home, model.fingerprint, model.attributes)
    assert f"move that folder to {own.place}" in message
    (home.scores / NAMELESS_FINGERPRINT).rename(own.place)
    assert nameless_scores(model, home) is None
    assert own.open().look_up(pl.Series([b"k" * 16])).height == 1


def test_a_template_that_changes_changes_the_fingerprint(tmp_path: Path) -> None:
    def fingerprint(template: str) -> str:
        tiny.tokenizer(template).save_pretrained(tmp_path / "tokenizer")
        given = GOOD | {"kind": "tei", "tokenizer": "tokenizer", "max_tokens": 100}
        return served_spec(settings(tmp_path, {"any": given}).endpoints()["any"]).fingerprint

    assert fingerprint(tiny.CHATML) == fingerprint(tiny.CHATML) != fingerprint(tiny.LLAMA3)


@pytest.mark.slow
def test_every_kind_has_its_backend(tmp_path: Path) -> None:
    for kind in KINDS:
        given = {"tokenizer": "t", "max_characters": 10} if kind != "openai" else {}
        endpoint = settings(tmp_path, {"any": GOOD | {"kind": kind} | given}).endpoints()["any"]
        assert backend_class(endpoint)
    assert endpoint.outputs == ATTRIBUTES


def test_an_operators_name_goes_before_the_catalogs(tmp_path: Path) -> None:
    assert isinstance(find_model("starter", models_of(settings(tmp_path, {"starter": GOOD}))), ServedSpec)
    assert endpoint_settings.read_endpoints(tmp_path / "endpoints.yaml").keys() == {"starter"}
