"""The entry point of a deployment: the curate flow with a reward model of no weights.

FAKE_MODEL is the model's folder. The tests' folder has to be on the path, for Dask's workers too.
"""

from __future__ import annotations

import os
from pathlib import Path

import fakes
from prefect.concurrency import _leases

from assay.rewards.spec import LocalSpec
from flows.curate import prepare
from flows.curate.flow import curate

__all__ = ["curate"]


def fake_model(name: str, *known: object, **options: object) -> LocalSpec:
    return fakes.spec(Path(os.environ["FAKE_MODEL"]))


vars(prepare)["find_model"] = fake_model

# A run that has a lease renews it every 6 s, and not every 225 s, so that a test can wait for it.
vars(_leases)["_RENEWAL_FRACTION"] = 0.02
