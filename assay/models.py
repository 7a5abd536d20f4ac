"""``--model NAME`` → what is known of that model. The only place that says what a name may be.

A name in the operator's list of endpoints is that service; any other is for the catalog, which knows
published models, folders and Hub ids.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.config import Settings
from assay.errors import UserMistake
from assay.rewards import catalog
from assay.rewards.endpoint import Endpoint
from assay.rewards.protocol import ModelSpec
from assay.rewards.remote.endpoints import spec_of


def find_model(
    name: str,
    *,
    settings: Settings,
    over_length: str = "quarantine",
    digest_cache: Path | None = None,
    **options: Any,
) -> ModelSpec:
    """The model of that name; UserMistake where there is none. ``options`` are the catalog's.

    An address is no name: a run says which service, and the operator says where it is.
    """
    endpoints = settings.endpoints()
    if name in endpoints:
        return spec_of(endpoints[name], over_length=over_length)
    if "://" in name:
        raise UserMistake(
            f"--model takes a name, not an address; {_told(name, endpoints)} (see docs/services.md)"
        )
    try:
        return catalog.find_model(name, over_length=over_length, digest_cache=digest_cache, **options)
    except UserMistake as mistake:
        close = difflib.get_close_matches(name, endpoints, n=1, cutoff=0.5)
        if close:
            raise UserMistake(f"{mistake}. Or the endpoint {close[0]!r}?") from mistake
        raise


def _told(name: str, endpoints: Mapping[str, Endpoint]) -> str:
    if not endpoints:
        return "an operator lists services by name in the file that ASSAY_ENDPOINTS_FILE names"
    return f"the operator's endpoints are {', '.join(endpoints)}"
