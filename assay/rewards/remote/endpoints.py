"""An operator's endpoint → a description of the model behind it, the class that asks it, and its key."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.core.digests import digest_of_content, running_digest
from assay.core.errors import ModelFault, UserMistake
from assay.core.schema import ATTRIBUTES
from assay.rewards.catalog import CATALOG, Entry
from assay.rewards.endpoint import Endpoint
from assay.rewards.remote.addresses import is_same_place
from assay.rewards.scalar import check_factors
from assay.rewards.spec import ServedSpec
from assay.storage.regular import irregular_in

#: Raised whenever the same conversation is sent in another way, or the same reply is read in another way.
SERVICE_VERSION = 1

#: Looks up a secret block by its name.
ReadBlock = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One protocol that a reward service may speak."""

    backend: str
    """``module:class``, imported when a service is opened."""
    needs_tokenizer: bool = False
    """The service takes text, not messages: Assay applies the chat template."""
    truncates: bool = False
    """The service cuts long texts without a report, so the endpoint must state a limit."""
    outputs: tuple[str, ...] = ()
    """The names of its numbers, in order, where the protocol fixes them."""
    names_no_model: bool = False
    """Every server of this kind has the same name: ``model`` does not show which model answers."""


KINDS: dict[str, Kind] = {
    "openai": Kind("assay.rewards.remote.openai_chat:OpenAIChat"),
    "vllm-classify": Kind("assay.rewards.remote.vllm:VLLMClassify"),
    "vllm-pooling": Kind("assay.rewards.remote.vllm:Pooling"),
    "tei": Kind("assay.rewards.remote.tei:Predict", needs_tokenizer=True),
    "tei-pair": Kind("assay.rewards.remote.tei:PredictPair"),
    "sglang": Kind("assay.rewards.remote.sglang:SGLangClassify", needs_tokenizer=True),
    # NeMo-Aligner's serve_reward_model.py returns the nine in this order, and calls its model reward_model.
    "nemo-triton": Kind(
        "assay.rewards.remote.triton:NemoAligner",
        truncates=True,
        outputs=ATTRIBUTES,
        names_no_model=True,
    ),
}

#: The files of a tokenizer's folder that decide how a conversation is rendered, and how many tokens it has.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def served_spec(
    endpoint: Endpoint,
    *,
    listed: Mapping[str, Endpoint] | None = None,
    factors: Mapping[str, float] | None = None,
) -> ServedSpec:
    """The service as a reward model. ``listed``: all endpoints of the operator, by name.

    The fingerprint covers which model answers and how it is asked: kind, the model's name, the revision that
    the operator states, attributes, limits of length, tokenizer and template. It leaves out the address, the
    key and the rate: a service that moves or gets a new key rates nothing again. Where neither the model's
    name nor a revision identifies the model, the fingerprint covers the endpoint's own name too.

    If the catalog holds the model, the service has that model's languages. It also has the catalog's factors
    if it rates all the attributes that they name, unless ``factors`` are given.
    """
    notes = []
    if not endpoint.revision:
        notes.append(
            f"{endpoint.name} is a service whose operator states no revision: if its model is exchanged, "
            "old and new scores are mixed."
        )
    if others := _sharers(endpoint, listed or {}):
        notes.append(
            f"{endpoint.name} shares its scores with {', '.join(others)}: by the list of endpoints they "
            "serve the same model. If one does not, state another revision for it."
        )
    entry = _in_catalog(endpoint)
    if factors is None:
        factors = entry.factors if set(entry.factors) <= set(endpoint.attributes) else {}
    if factors:
        check_factors(endpoint.attributes, factors)
    return ServedSpec(
        name=endpoint.name,
        attributes=endpoint.attributes,
        fingerprint=_fingerprint(endpoint),
        notes=tuple(notes),
        languages=entry.languages,
        without_system=entry.without_system,
        factors=tuple(factors.items()),
        endpoint=endpoint,
        nameless_fingerprint=_nameless_fingerprint(endpoint),
    )


def _in_catalog(endpoint: Endpoint) -> Entry:
    """The catalog's entry of the model that the endpoint serves; an empty entry where there is none."""
    for name, entry in CATALOG.items():
        if name.casefold() == endpoint.model.casefold():
            return entry
    return Entry(source=endpoint.model)


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
    return digest_of_content(json.dumps(identity).encode())


def _goes_by_its_own_name(endpoint: Endpoint) -> bool:
    return KINDS[endpoint.kind].names_no_model and not endpoint.revision


def _nameless_fingerprint(endpoint: Endpoint) -> str | None:
    """The fingerprint without the endpoint's name, as earlier versions made it. None where they are equal.

    Scores that are stored under it may come from any service of this kind.
    """
    return _fingerprint(endpoint, with_name=False) if _goes_by_its_own_name(endpoint) else None


def _sharers(endpoint: Endpoint, listed: Mapping[str, Endpoint]) -> tuple[str, ...]:
    """The names of the other ``listed`` endpoints that share their scores with this one.

    They have this one's address, or state the same revision. ``UserMistake`` where neither holds but the
    fingerprints are equal: each would get the other's scores.
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
            # Its tokenizer is missing. That concerns only a run that names it, unless scores could be mixed.
            if not asked_for:
                raise
            continue
        if equal and not asked_for:
            raise UserMistake(
                f"endpoints {endpoint.name} and {name} differ only in their address, so each would get the "
                "other's scores. State a revision for each: the same one if both serve the same model, else "
                "two different ones"
            )
        if equal:
            names.append(name)
    return tuple(names)


def _may_be_equal(one: Endpoint, other: Endpoint) -> bool:
    """Whether their fingerprints can be equal. Compares only what needs no file to be read."""
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
    running = running_digest()
    for name in _TOKENIZER_FILES:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        running.update(b"%s %d\n" % (name.encode(), len(content)))
        running.update(content)
    return running.hexdigest()


def backend_class(endpoint: Endpoint) -> Any:
    """The class that speaks the endpoint's protocol. This imports its module."""
    module, _, name = KINDS[endpoint.kind].backend.partition(":")
    return getattr(importlib.import_module(module), name)


def key_of(endpoint: Endpoint, read_block: ReadBlock | None = None) -> str | None:
    """The endpoint's key, looked up now; None where it needs none. ModelFault where the key is missing."""
    if endpoint.key_variable is not None:
        key = os.environ.get(endpoint.key_variable, "").strip()
        if not key:
            raise ModelFault(
                f"endpoint {endpoint.name}: its key is read from the environment variable "
                f"{endpoint.key_variable}, which is not set in the process that asks for scores; set it there"
            )
        return key
    if endpoint.key_block is not None:
        if read_block is None:
            raise ModelFault(
                f"endpoint {endpoint.name}: its key is in the Prefect Secret block {endpoint.key_block!r}, "
                "which only a flow can read; to use this endpoint elsewhere, state key_variable"
            )
        return read_block(endpoint.key_block).strip()
    return None
