"""What is stored stays valid: keys and fingerprints that an earlier release wrote are still the ones in use.

The values were written down from an earlier release's code (commit 5eddf13). A change that moves one makes
every user pay for the scores again, or read scores that were made otherwise.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from assay.config.resolve import models_of
from assay.config.settings import Settings
from assay.core.schema import Message, turn_keys
from assay.rewards.endpoint import Endpoint
from assay.rewards.families import FAMILIES
from assay.rewards.find import find_model
from assay.rewards.fingerprint import fingerprint
from assay.rewards.remote.endpoints import served_spec

VERSIONS = {"transformers": "5.24.0", "tokenizers": "0.22.1"}
"""Of the libraries that render: the fingerprint names them, and so does what is recorded here."""


@pytest.fixture(autouse=True)
def recorded_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: VERSIONS.get(name) or installed(name))


CONVERSATIONS = {
    "one turn": [("user", "What is 2 + 2?"), ("assistant", "4.")],
    "system, two turns": [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "Grüße, 世界 🌍"),
        ("assistant", "Ebenso: a\u2028b\n"),
    ],
    "assistant first": [("assistant", "How can I help?"), ("user", "No"), ("assistant", "")],
    "a tool": [("user", "Weather?"), ("assistant", "…"), ("tool", '{"c": 3}'), ("assistant", "3 °C")],
}

KEYS = {
    "one turn": ["583bf4cfd8e047d2b6b544cf37711991"],
    "system, two turns": ["d38aa3ff968a751713ed052700c711bb", "477e4afb44add282bdc1a1acb3ebf958"],
    "assistant first": ["7bcb77f2827ac51330c7c56e56db8ada", "c99b2fbef7b41e552a933dd2fdeddf43"],
    "a tool": ["5b74280eec6bd3edfbd8ff8f245e4af0", "92e82090ab09f327b0156c012686a702"],
}
FOLDER_FINGERPRINTS = {
    "sequence-classification": "d0f36eeb49fb05317d456f7a63f0ebeb",
    "first-token-logit": "2928667f11926a0f7792a8ea7c92ce3f",
    "gated-objectives": "4252d30a1451196f493b5e4a8f6bd5ae",
    "attribute-mixture": "95b1b44d4ac7fc48fb885ab5356db678",
    "appended-token": "74366cca652cc417755185f72909e254",
    "pair-classification": "4fca87e0c498c04d9733d9e117fe43c9",
}
ENDPOINT_FINGERPRINTS = {
    "openai": "1f42c3efa7a241b976364dd23e24c901",
    "vllm-classify": "e80e4fb2ec8e1e6072fc4f19ad8ec124",
    "vllm-pooling": "0451546eae61f436b4a85c77fc7f2b49",
    "tei-pair": "bced1b786ba048f407929ec46bbce566",
    "nemo-triton": "d18ab237eafa71584adf08d39b198801",
}
STARTER = "e07a19ef1d7fa4f012f54e0a04c06b99"


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_keys_of_turns_are_those_of_before(name: str) -> None:
    keys = turn_keys(Message(role, content) for role, content in CONVERSATIONS[name])
    assert [key.key.hex() for key in keys] == KEYS[name]


def test_the_starters_fingerprint_is_that_of_before() -> None:
    assert find_model("starter", models_of(Settings())).fingerprint == STARTER


@pytest.mark.parametrize("family", FOLDER_FINGERPRINTS)
def test_a_folders_fingerprint_is_that_of_before(family: str, tmp_path: Path) -> None:
    assert family in FAMILIES
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes(f"the bytes of {name}\n".encode())
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"one")
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"two")
    (tmp_path / "README.md").write_bytes(b"no score depends on it")
    found = fingerprint(
        tmp_path,
        family=family,
        attributes=("helpfulness", "verbosity"),
        dtype="bfloat16",
        max_tokens=4096,
        over_length="quarantine",
        remote_code=False,
        digest_cache=None,
    )
    assert found == FOLDER_FINGERPRINTS[family]


ENDPOINTS = {
    "openai": Endpoint("a", "https://one.example/v1", "openai", "nvidia/x", ("reward",), revision="2026-01"),
    "vllm-classify": Endpoint(
        "a", "https://one.example", "vllm-classify", "m", ("reward",), ("reward",), "r1", max_characters=9000
    ),
    "vllm-pooling": Endpoint("a", "https://one.example", "vllm-pooling", "m", ("reward",), ("reward",), "r1"),
    "tei-pair": Endpoint("a", "https://one.example", "tei-pair", "m", ("reward",), ("reward",), "r1"),
    "nemo-triton": Endpoint(
        "a",
        "https://one.example",
        "nemo-triton",
        "reward_model",
        ("helpfulness", "correctness"),
        (
            "quality",
            "toxicity",
            "humor",
            "creativity",
            "helpfulness",
            "correctness",
            "coherence",
            "complexity",
            "verbosity",
        ),
        "2024-06",
        max_characters=9000,
    ),
}


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_the_fingerprint_of_a_service_with_a_revision_is_that_of_before(kind: str) -> None:
    assert served_spec(ENDPOINTS[kind]).fingerprint == ENDPOINT_FINGERPRINTS[kind]
