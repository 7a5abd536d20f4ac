"""What an operator says of a reward service, and what that makes it as a model.

Plain dataclasses: the settings that they are read from are in ``assay.config.options``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import STEERLM_ATTRIBUTES
from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import ModelSpec
from assay.rewards.remote.addresses import is_same_place
from assay.storage.regular import irregular_in

#: Counted up whenever the same conversation would be put to a service in another way, or its reply be
#: read in another way.
SERVICE_VERSION = 1

#: Looks up a secret block by its name.
ReadBlock = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One protocol that a reward service may speak."""

    backend: str
    """``module:class``, imported when a service is opened."""
    needs_tokenizer: bool = False
    """It takes text, not messages, so the chat template is applied here."""
    truncates: bool = False
    """It cuts what is too long without a word, so a limit has to be known here."""
    outputs: tuple[str, ...] = ()
    """What the numbers it gives mean, in their order, where the protocol fixes that."""
    names_no_model: bool = False
    """Every server of this kind goes by one name, so ``model`` does not say which model answers."""


KINDS: dict[str, Kind] = {
    "openai": Kind("assay.rewards.remote.openai_chat:OpenAIChat"),
    "vllm-classify": Kind("assay.rewards.remote.vllm:Classify"),
    "vllm-pooling": Kind("assay.rewards.remote.vllm:Pooling"),
    "tei": Kind("assay.rewards.remote.tei:Predict", needs_tokenizer=True),
    "tei-pair": Kind("assay.rewards.remote.tei:PredictPair"),
    "sglang": Kind("assay.rewards.remote.sglang:Classify", needs_tokenizer=True),
    # NeMo-Aligner's serve_reward_model.py gives the nine in this order, and its model the name reward_model.
    "nemo-triton": Kind(
        "assay.rewards.remote.triton:NemoAligner",
        truncates=True,
        outputs=STEERLM_ATTRIBUTES,
        names_no_model=True,
    ),
}

#: Of a tokenizer's folder, what decides how a conversation is written and how long it is.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def spec_of(endpoint: Endpoint, *, over_length: str = "quarantine") -> ModelSpec:
    """The service as a reward model. UserMistake where a run asks what no service can do.

    Its fingerprint says which model answers and how it is asked: kind, the model's name, the revision that
    the operator states, attributes, limits of length, tokenizer and template. Not the address, the key or
    the rate: a service that moves, or whose key is changed, rates nothing anew. Where neither the model's
    name nor a revision says which model answers, the endpoint's own name does.
    """
    if over_length != "quarantine":
        raise UserMistake(
            f"--over-length {over_length}: {endpoint.name} is a service, which is shown conversations "
            "whole or not at all; leave --over-length at quarantine"
        )
    notes = []
    if not endpoint.revision:
        notes.append(
            f"{endpoint.name} is a service whose operator states no revision: scores from before and "
            "after its model was exchanged would not be told apart."
        )
    return ModelSpec(
        name=endpoint.name,
        folder=endpoint.tokenizer or "",
        family=endpoint.kind,
        attributes=endpoint.attributes,
        max_tokens=endpoint.max_tokens or 0,
        over_length=over_length,
        dtype="as served",
        opener="assay.rewards.remote.service:open_service",
        fingerprint=_fingerprint(endpoint),
        notes=tuple(notes),
        endpoint=endpoint,
    )


def _fingerprint(endpoint: Endpoint, *, with_name: bool = True) -> str:
    identity: list[object] = [
        SERVICE_VERSION,
        endpoint.kind,
        endpoint.model,
        endpoint.revision,
        list(endpoint.attributes),
        list(endpoint.outputs),
        endpoint.max_tokens,
        endpoint.max_characters,
        _tokenizer_digest(endpoint),
    ]
    if with_name and _goes_by_its_own_name(endpoint):
        identity.append(endpoint.name)
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()


def _goes_by_its_own_name(endpoint: Endpoint) -> bool:
    return KINDS[endpoint.kind].names_no_model and not endpoint.revision


def nameless_fingerprint(endpoint: Endpoint) -> str | None:
    """The fingerprint of before the endpoint's own name was in it; None where it is not in it.

    Scores that are kept under it may be of any service of that kind.
    """
    return _fingerprint(endpoint, with_name=False) if _goes_by_its_own_name(endpoint) else None


def sharers(endpoint: Endpoint, listed: Mapping[str, Endpoint]) -> tuple[str, ...]:
    """Names of the other ``listed`` endpoints that share their scores with this one, as the list asks for.

    They are one service under several names, or state one revision for all. UserMistake where neither is so,
    and yet their fingerprints are equal: one would be given scores of the other's.
    """
    own = _fingerprint(endpoint)
    names = []
    for name, other in listed.items():
        if name == endpoint.name or not _may_be_equal(endpoint, other):
            continue
        asked_for = bool(endpoint.revision) or is_same_place(endpoint.url, other.url)
        try:
            equal = _fingerprint(other) == own
        except UserMistake:
            # Its tokenizer is not here. That is for whoever names it, unless scores could go astray.
            if not asked_for:
                raise
            continue
        if equal and not asked_for:
            raise UserMistake(
                f"endpoints {endpoint.name} and {name} are at two addresses, and nothing else in the list of "
                "endpoints tells them apart, so one would be given the other's scores. State a revision for "
                "each: the same one where both serve the same model, else two"
            )
        if equal:
            names.append(name)
    return tuple(names)


def _may_be_equal(one: Endpoint, other: Endpoint) -> bool:
    """Whether their fingerprints can be equal: what costs nothing to compare, before files are read."""
    return (one.kind, one.model, one.revision, one.attributes, one.outputs) == (
        other.kind,
        other.model,
        other.revision,
        other.attributes,
        other.outputs,
    ) and (one.tokenizer is None) == (other.tokenizer is None)


def _tokenizer_digest(endpoint: Endpoint) -> str | None:
    if endpoint.tokenizer is None:
        return None
    folder = Path(endpoint.tokenizer)
    if not (folder / "tokenizer.json").exists():
        raise UserMistake(f"endpoint {endpoint.name}: tokenizer: there is no tokenizer.json in {folder}")
    if found := irregular_in(folder):
        raise UserMistake(f"endpoint {endpoint.name}: tokenizer: {found}")
    running = hashlib.blake2b(digest_size=16)
    for name in _TOKENIZER_FILES:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        running.update(b"%s %d\n" % (name.encode(), len(content)))
        running.update(content)
    return running.hexdigest()


def backend_class(endpoint: Endpoint) -> Any:
    """The class that speaks the endpoint's protocol; its module is imported now."""
    module, _, name = KINDS[endpoint.kind].backend.partition(":")
    return getattr(importlib.import_module(module), name)


def key_of(endpoint: Endpoint, read_block: ReadBlock | None = None) -> str | None:
    """The endpoint's key, looked up now; None where it has none. ModelFault where it cannot be had."""
    if endpoint.key_variable is not None:
        key = os.environ.get(endpoint.key_variable, "").strip()
        if not key:
            raise ModelFault(
                f"endpoint {endpoint.name}: its key is to be in the environment variable "
                f"{endpoint.key_variable}, which is not set where the scores are asked for"
            )
        return key
    if endpoint.key_block is not None:
        if read_block is None:
            raise ModelFault(
                f"endpoint {endpoint.name}: its key is in the Prefect Secret block {endpoint.key_block!r}, "
                "which only a flow can read; state key_variable to use it elsewhere"
            )
        return read_block(endpoint.key_block).strip()
    return None
