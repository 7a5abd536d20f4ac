"""``python fake_curate.py …`` is ``python -m flows.curate …`` with a reward model of no weights.

FAKE_MODEL and FAKE_FINGERPRINT are the model's folder and fingerprint. The tests' folder has to be on
the path, for the workers too.
"""

from __future__ import annotations

import os
from pathlib import Path

import fakes

from assay.rewards.protocol import ModelSpec
from flows import curate_command
from flows.launch import main


def fake_model(name: str, **options: object) -> ModelSpec:
    return fakes.spec(Path(os.environ["FAKE_MODEL"]), os.environ["FAKE_FINGERPRINT"])


if __name__ == "__main__":
    curate_command.find_model = fake_model
    main(curate_command.COMMAND)
