"""``--model NAME`` → what is known of that model. The one place that decides what a name stands for.

A name in the operator's list of folders is the model in that folder, one in the list of endpoints that
service. Any other is a name of the catalog, an id on the Hub, or a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from assay.core.errors import UserMistake
from assay.core.text import nearest
from assay.rewards.endpoint import Endpoint
from assay.rewards.local_spec import local_spec
from assay.rewards.options import LoadOptions, ModelOptions
from assay.rewards.remote.endpoints import served_spec
from assay.rewards.spec import LocalSpec, ModelSpec, ServedSpec


@dataclass(frozen=True)
class KnownModels:
    """The models that an operator names, beside those of the catalog, and how models are loaded."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)
    """The families of models in those folders that do not show it themselves, by name."""
    published: Mapping[str, str] = field(default_factory=dict)
    """The names in the catalog of the models in those folders, by name."""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    loading: LoadOptions = field(default_factory=LoadOptions)


def find_model(
    name: str,
    known: KnownModels = KnownModels(),
    options: ModelOptions = ModelOptions(),
    *,
    digest_cache: Path | None = None,
) -> ModelSpec:
    """The model of that name; ``UserMistake`` where there is none.

    An address is no name: a run names a service, and the operator knows where it is. ``digest_cache`` is a
    JSON file in which digests of large weights are kept by size and time.

    >>> find_model("starter").attributes[:2]
    ('quality', 'toxicity')
    """
    if name in known.folders:
        return _in_named_folder(name, known, options, digest_cache)
    if name in known.endpoints:
        return _served(name, known, options)
    if "://" in name:
        raise UserMistake(
            f"--model takes a name, not an address; {_where_services_are(known)} (see docs/services.md)"
        )
    try:
        return local_spec(name, options, known.loading, digest_cache)
    except UserMistake as mistake:
        close = nearest(name, known.endpoints)
        if close is not None:
            raise UserMistake(f"{mistake}. Or the endpoint {close!r}?") from mistake
        raise


def _in_named_folder(
    name: str, known: KnownModels, options: ModelOptions, digest_cache: Path | None
) -> LocalSpec:
    said = replace(
        options,
        family=options.family or known.families.get(name),
        known_as=options.known_as or known.published.get(name),
    )
    found = local_spec(str(known.folders[name]), said, known.loading, digest_cache)
    return replace(found, name=name)


def _served(name: str, known: KnownModels, options: ModelOptions) -> ServedSpec:
    """The service of that name; ``UserMistake`` for an option of local models, which its operator decides."""
    for_local_models = {
        "--dtype": options.dtype,
        "--revision": options.revision,
        "--as": options.known_as,
        "--family": options.family,
        "--read-at": options.read_at,
        "--add-bos": options.add_bos,
        "--attributes": options.attributes,
        "--max-tokens": options.max_tokens,
    }
    refused = next((option for option, value in for_local_models.items() if value), None)
    if refused is not None:
        raise UserMistake(
            f"{refused}: {name} is a service, whose operator says that in the list of endpoints; leave it out"
        )
    if options.over_length != "quarantine":
        raise UserMistake(
            f"--over-length {options.over_length}: {name} is a service, which is shown conversations whole "
            "or not at all; leave --over-length at quarantine"
        )
    return served_spec(known.endpoints[name], listed=known.endpoints, factors=options.factors)


def _where_services_are(known: KnownModels) -> str:
    if not known.endpoints:
        return "an operator lists services by name in the file that ASSAY_ENDPOINTS_FILE names"
    return f"the operator's endpoints are {', '.join(known.endpoints)}"
