"""The entry point of a deployment: the curate flow with a reward model of no weights.

FAKE_MODEL is the model's folder. The tests' folder has to be on the path, for Dask's workers too.
"""

from __future__ import annotations

import os
from pathlib import Path

import fakes
from patience import RENEWAL_SECONDS
from prefect.concurrency import _leases

from assay.rewards.spec import LocalSpec
from flows.curate import prepare
from flows.curate.flow import curate

__all__ = ["curate"]


def fake_model(name: str, *known: object, **options: object) -> LocalSpec:
    return fakes.spec(Path(os.environ["FAKE_MODEL"]))


vars(prepare)["find_model"] = fake_model

# Of a lease of 300 s, which is renewed every 225 s unless a test cannot wait for that.
vars(_leases)["_RENEWAL_FRACTION"] = RENEWAL_SECONDS / 300
