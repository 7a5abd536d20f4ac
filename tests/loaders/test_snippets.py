"""The snippets of docs/trainers.md run, from our file to a training step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from loaders.exported import Exports
from places import ROOT

LOADER = "trl"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PAGE = (ROOT / "docs/trainers.md").read_text()


def snippet(trainer: str, language: str) -> str:
    found = re.search(rf"### {trainer}\n.*?```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_trls_snippet_trains_a_step(exports: Exports, load: Any, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(exports.folder)
    assert load("run_snippet", code=snippet("TRL", "python")) == {"steps": 1}


def test_llamafactorys_snippet_names_what_dataset_info_names(exports: Exports) -> None:
    config = yaml.safe_load(snippet("LLaMA-Factory", "yaml"))
    info = (exports.folder / config["dataset_dir"].removeprefix("out/") / "dataset_info.json").read_text()
    assert f'"{config["dataset"]}"' in info


@pytest.mark.parametrize("file", sorted(set(re.findall(r"out/([\w/.-]+\.(?:jsonl|parquet))", PAGE))))
def test_every_file_that_a_snippet_names_is_written(file: str, exports: Exports) -> None:
    assert (exports.folder / file).exists()
