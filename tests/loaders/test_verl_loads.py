"""verl reads every row of its tables to the letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from loaders.calling_chats import MOON, TEMPLATE, TIDE, conversations, shown
from loaders.exported import Exports, exported_rows
from loaders.page import words

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


def test_the_snippets_command_reads_every_row(exports: Exports, load: Any, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(exports.folder)
    _, _, option, module, *overrides = words("verl")
    assert (option, module) == ("-m", "verl.trainer.sft_trainer")
    done = load("verl_snippet", overrides=overrides)
    assert len(done["tokens"]) == len(exports.rows("verl-sft"))


def test_a_long_row_is_read_by_the_length_that_the_snippet_names(load: Any, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one two " * 800}]
    (tmp_path / "out").symlink_to(exported_rows([{"messages": said}], tmp_path / "long").folder)
    *_, files, key, length = words("verl")
    assert length.startswith("data.max_length=")
    (tokens,) = load("verl_snippet", overrides=[files, key, length])["tokens"]
    assert tokens > 1024
    assert "died" in load("verl_snippet", overrides=[files, key])


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


def test_sft_shows_calls_and_reasoning_of_records_without_tools(calls: Exports, load: Any) -> None:
    done = load("verl_load", kind="sft", file=str(calls.path("verl-sft")), template=TEMPLATE)
    assert [one["text"] for one in done["rows"]] == [
        shown(one) for one, tools in conversations() if not tools
    ]


def test_sft_would_show_each_tool_with_the_parameters_of_the_others(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "tools.parquet"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi."}]
    lines = [json.dumps({"messages": messages, "tools": [tool]}) for tool in (TIDE, MOON)]
    # All rows are looked at for the types: with the first alone, what only others have would be gone.
    pl.read_ndjson("\n".join(lines).encode(), infer_schema_length=None).write_parquet(path)
    done = load("verl_load", kind="sft", file=str(path), template=TEMPLATE)
    assert ["null" in one["text"] for one in done["rows"]] == [True, True]
