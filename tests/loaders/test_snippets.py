"""TRL's snippet of docs/trainers.md runs to a training step; those that no loader runs name what is written.

The other trainers' are run beside their loaders' tests.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from loaders.exported import Exports
from loaders.page import PAGE, snippet, words

LOADER = "trl"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_trls_snippet_trains_a_step(exports: Exports, load: Any, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(exports.folder)
    assert load("run_snippet", code=snippet("TRL", "python")) == {"steps": 1}


def test_nemo_rls_snippet_names_lines_that_end_on_an_answer(exports: Exports) -> None:
    """``openai_format`` (nemo_rl/data/datasets/response_datasets/oai_format_dataset.py) asserts that."""
    data = yaml.safe_load(snippet("NeMo-RL", "yaml"))["data"]
    assert data.pop("train_data_path") == f"out/{exports.written['nemo-rl-sft'].file}"
    assert data == {"dataset_name": "openai_format", "use_preserving_dataset": True}
    assert {row["messages"][-1]["role"] for row in exports.rows("nemo-rl-sft")} == {"assistant"}


def test_ms_swifts_snippet_names_the_data(exports: Exports) -> None:
    assert words("ms-swift")[-2:] == ["--dataset", f"out/{exports.written['swift-sft'].file}"]


@pytest.mark.parametrize("file", sorted(set(re.findall(r"out/([\w/.-]+\.(?:jsonl|parquet))", PAGE))))
def test_every_file_that_a_snippet_names_is_written(file: str, exports: Exports) -> None:
    assert (exports.folder / file).exists()
