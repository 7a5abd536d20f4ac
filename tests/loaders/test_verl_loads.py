"""verl reads every row of its tables to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from loaders.exported import Exports

LOADER = "verl"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_sft_learns_every_turn(exports: Exports, load: Any) -> None:
    done = load("verl_load", kind="sft", file=str(exports.path("verl-sft")))
    rows = exports.rows("verl-sft")
    assert len(done.get("rows", [])) == len(rows), done
    for row, seen in zip(rows, done["rows"], strict=True):
        said = [f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in row["messages"]]
        assert seen["text"] == "".join(said)
        answers = [one["content"] for one in row["messages"] if one["role"] == "assistant"]
        assert seen["learned"] == "".join(f"{text}<|im_end|>\n" for text in answers)


def test_reward_models_see_every_pair(exports: Exports, load: Any) -> None:
    done = load("verl_load", kind="preference", file=str(exports.path("verl-preference")))
    rows = exports.rows("verl-preference")
    assert len(done.get("rows", [])) == len(rows) > 0, done
    for row, seen in zip(rows, done["rows"], strict=True):
        assert seen == [f"{row['prompt']}{row[side]}<|im_end|>" for side in ("chosen", "rejected")]


def test_a_prompt_that_is_a_list_is_died_on(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    pl.DataFrame({"prompt": [prompt], "chosen": ["a"], "rejected": ["b"]}).write_parquet(path)
    assert "died" in load("verl_load", kind="preference", file=str(path))
