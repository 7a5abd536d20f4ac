"""Files as a run exports them, and the real loaders, each in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
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


@pytest.fixture(scope="session")
def loaders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """The process of a loader, which imports what it imports once for all tests."""
    with ExitStack() as stack:

        @cache
        def started(name: str) -> subprocess.Popen[str]:
            folder = tmp_path_factory.mktemp(name)
            environment = {
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "HF_HOME": str(folder / "hf"),
                "CUDA_VISIBLE_DEVICES": "",
                "TOKENIZERS_PARALLELISM": "false",
                "ASSAY_TOKENIZER": str(ROOT / "assay/rewards/starter"),
                "DISABLE_VERSION_CHECK": "1",
                "PYTHONPATH": str(PROGRAMS),
            }
            process = subprocess.Popen(
                [str(python_of(name)), str(PROGRAMS / "forking.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context((folder / "stderr").open("w")),
                text=True,
                env=environment,
                cwd=folder,
            )
            # At the end of its input it ends.
            return stack.enter_context(process)

        yield started


@pytest.fixture
def load(
    request: pytest.FixtureRequest, tmp_path: Path, loaders: Callable[[str], subprocess.Popen[str]]
) -> Load:
    """Runs a program in the environment of the module's loader, with JSON arguments; what it prints last."""
    name = request.module.LOADER
    if not python_of(name).with_name("..").joinpath("built").exists():
        pytest.skip(f"{name} is not installed: `make test-loaders` builds .loaders/{name}")
    assert name in COMMANDS

    def loaded(program: str, **arguments: Any) -> Any:
        process = loaders(name)
        assert process.stdin is not None
        assert process.stdout is not None
        wanted = {
            "program": str(PROGRAMS / f"{program}.py"),
            "arguments": json.dumps(arguments),
            "folder": str(tmp_path),
        }
        print(json.dumps(wanted), file=process.stdin, flush=True)
        code = process.stdout.readline().strip()
        assert code == "0", (code, (tmp_path / "stderr").read_text()[-4000:])
        return json.loads((tmp_path / "stdout").read_text().splitlines()[-1])

    return loaded
