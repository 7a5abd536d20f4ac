"""``--model NAME`` → what is known of that model. The only place that says what a name may be.

A name in the operator's list of folders is the model in that folder, one in the list of endpoints that
service; any other is for the catalog, which knows published models, folders and Hub ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.core.errors import UserMistake
from assay.core.text import nearest
from assay.rewards import catalog
from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import ModelSpec
from assay.rewards.published import CATALOG, Entry
from assay.rewards.remote.endpoints import sharers, spec_of
from assay.rewards.scalar import check_weights


@dataclass(frozen=True)
class KnownModels:
    """The models that an operator names, beside those of the catalog, and how models are loaded."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)
    """The family of a folder's model, for those folders that do not say it themselves."""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    loading: catalog.LoadOptions = field(default_factory=catalog.LoadOptions)


def find_model(
    name: str,
    known: KnownModels | None = None,
    *,
    over_length: str = "quarantine",
    weights: Mapping[str, float] | None = None,
    digest_cache: Path | None = None,
    **options: Any,
) -> ModelSpec:
    """The model of that name; UserMistake where there is none. ``options`` are the catalog's.

    An address is no name: a run says which service, and the operator says where it is. A service of a
    published model has that model's weights, where it rates all that they name, and its languages.
    """
    known = known or KnownModels()
    endpoints = known.endpoints
    if name in known.folders:
        family = options.get("family") or known.families.get(name)
        folder = str(known.folders[name])
        spec = _in_catalog(folder, known, over_length, weights, digest_cache, {**options, "family": family})
        return dataclasses.replace(spec, name=name)
    if name in endpoints:
        refused = [option for option, value in options.items() if value]
        if refused:
            raise UserMistake(
                f"--{refused[0].replace('_', '-')}: {name} is a service, whose operator says that in the "
                "list of endpoints; leave it out"
            )
        spec = spec_of(endpoints[name], over_length=over_length)
        if shared := sharers(endpoints[name], endpoints):
            spec = dataclasses.replace(spec, notes=(*spec.notes, _shares(name, shared)))
        entry = _published(endpoints[name])
        if weights is None:
            weights = entry.weights if set(entry.weights) <= set(spec.attributes) else {}
        if weights:
            check_weights(spec.attributes, weights)
        return dataclasses.replace(spec, weights=tuple(weights.items()), languages=entry.languages)
    if "://" in name:
        raise UserMistake(
            f"--model takes a name, not an address; {_told(name, endpoints)} (see docs/services.md)"
        )
    try:
        return _in_catalog(name, known, over_length, weights, digest_cache, options)
    except UserMistake as mistake:
        close = nearest(name, endpoints)
        if close is not None:
            raise UserMistake(f"{mistake}. Or the endpoint {close!r}?") from mistake
        raise


def _in_catalog(
    name: str,
    known: KnownModels,
    over_length: str,
    weights: Mapping[str, float] | None,
    digest_cache: Path | None,
    options: Mapping[str, Any],
) -> ModelSpec:
    return catalog.catalog_model(
        name,
        over_length=over_length,
        weights=weights,
        loading=known.loading,
        digest_cache=digest_cache,
        **options,
    )


def _published(endpoint: Endpoint) -> Entry:
    """What is published of the model that is served there; nothing, of one that the catalog does not know."""
    for name, entry in CATALOG.items():
        if name.casefold() == endpoint.model.casefold():
            return entry
    return Entry(source=endpoint.model)


def _shares(name: str, others: Sequence[str]) -> str:
    return (
        f"{name} shares its scores with {', '.join(others)}: the list of endpoints says that they serve the "
        "same model. State another revision for one that does not."
    )


def _told(name: str, endpoints: Mapping[str, Endpoint]) -> str:
    if not endpoints:
        return "an operator lists services by name in the file that ASSAY_ENDPOINTS_FILE names"
    return f"the operator's endpoints are {', '.join(endpoints)}"
