"""Files as a run exports them, and the real loaders, each in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loaders.exported import Exports, of_samples, of_tool_calls
from loaders.venvs import COMMANDS, python_of
from places import ROOT

PROGRAMS = Path(__file__).parent / "programs"
Load = Callable[..., Any]


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """All exports of the demo's samples, and of what data there are besides."""
    return of_samples(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """All exports of conversations with tools."""
    return of_tool_calls(tmp_path_factory.mktemp("calls"))


@pytest.fixture
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Load:
    """Runs a program in the environment of the module's loader, with JSON arguments; what it prints last."""
    name = request.module.LOADER
    if not python_of(name).with_name("..").joinpath("built").exists():
        pytest.skip(f"{name} is not installed: `make test-loaders` builds .loaders/{name}")
    assert name in COMMANDS

    def loaded(program: str, **arguments: Any) -> Any:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "CUDA_VISIBLE_DEVICES": "",
            "TOKENIZERS_PARALLELISM": "false",
            "ASSAY_TOKENIZER": str(ROOT / "assay/rewards/starter"),
            "DISABLE_VERSION_CHECK": "1",
            "PYTHONPATH": str(PROGRAMS),
        }
        done = subprocess.run(
            [str(python_of(name)), str(PROGRAMS / f"{program}.py"), json.dumps(arguments)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return loaded
