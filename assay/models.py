"""``--model NAME`` → what is known of that model. The only place that says what a name may be.

A name in the operator's list of folders is the model in that folder, one in the list of endpoints that
service; any other is for the catalog, which knows published models, folders and Hub ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.config import Settings
from assay.errors import UserMistake
from assay.nearest import nearest
from assay.rewards import catalog
from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import ModelSpec
from assay.rewards.published import CATALOG, Entry
from assay.rewards.remote.endpoints import sharers, spec_of
from assay.scalar import check_weights


def find_model(
    name: str,
    *,
    settings: Settings,
    over_length: str = "quarantine",
    weights: Mapping[str, float] | None = None,
    digest_cache: Path | None = None,
    **options: Any,
) -> ModelSpec:
    """The model of that name; UserMistake where there is none. ``options`` are the catalog's.

    An address is no name: a run says which service, and the operator says where it is. A service of a
    published model has that model's weights, where it rates all that they name, and its languages.
    """
    endpoints = settings.endpoints()
    if name in settings.model_folders:
        family = options.get("family") or settings.model_families.get(name)
        folder = str(settings.model_folders[name])
        spec = _in_catalog(
            folder, settings, over_length, weights, digest_cache, {**options, "family": family}
        )
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
        return _in_catalog(name, settings, over_length, weights, digest_cache, options)
    except UserMistake as mistake:
        close = nearest(name, endpoints)
        if close is not None:
            raise UserMistake(f"{mistake}. Or the endpoint {close!r}?") from mistake
        raise


def _in_catalog(
    name: str,
    settings: Settings,
    over_length: str,
    weights: Mapping[str, float] | None,
    digest_cache: Path | None,
    options: Mapping[str, Any],
) -> ModelSpec:
    return catalog.find_model(
        name,
        over_length=over_length,
        weights=weights,
        loading=loading_options(settings),
        digest_cache=digest_cache,
        **options,
    )


def loading_options(settings: Settings) -> catalog.LoadOptions:
    """What the operator says about loading models. Several GPUs a model need a map of it over them."""
    spread = "auto" if settings.gpus_per_model > 1 else None
    return catalog.LoadOptions(
        trust_remote_code=settings.trust_remote_code,
        hub_token_variable=settings.hub_token_variable,
        device_map=settings.device_map or spread,
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
