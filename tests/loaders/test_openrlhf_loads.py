"""OpenRLHF's RewardDataset reads every pair to the letter, with its margin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loaders.calling_chats import TEMPLATE, TIDE, conversations, shown
from loaders.exported import Exports, forced
from loaders.items import pair
from loaders.page import words

from assay.export import PAIR_EXPORTS

LOADER = "openrlhf"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAME = "openrlhf-preference"


def test_every_pair_is_read(exports: Exports, load: Any) -> None:
    done = load("openrlhf_load", file=str(exports.path(NAME)))["rows"]
    rows = exports.rows(NAME)
    assert len(done) == len(rows) > 0
    for row, seen in zip(rows, done, strict=True):
        said = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in row["prompt"])
        assert seen["prompt"] == said + "<|im_start|>assistant\n"
        for side in ("chosen", "rejected"):
            assert seen[side] == f"{row[side][0]['content']}<|im_end|>\n"
        assert seen["margin"] == row["margin"]


def test_the_snippets_command_reads_every_pair(exports: Exports, load: Any, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(exports.folder)
    python, option, *module_and_words = words("OpenRLHF")
    assert (python, option) == ("python", "-m")
    done = load("openrlhf_snippet", words=module_and_words)
    rows = exports.rows(NAME)
    assert len(done) == len(rows)
    for row, seen in zip(rows, done, strict=True):
        said = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in row["prompt"])
        assert seen["prompt"] == said + "<|im_start|>assistant\n"
        assert [seen[side] for side in ("chosen", "rejected")] == [
            f"{row[side][0]['content']}<|im_end|>\n" for side in ("chosen", "rejected")
        ]


def test_an_empty_prompt_is_died_on_or_leaves_an_answer_to_nothing(load: Any, tmp_path: Path) -> None:
    file = forced(tmp_path / "bad.jsonl", PAIR_EXPORTS[NAME], pair(""))
    done = load("openrlhf_load", file=str(file))
    assert "died" in done or done["rows"][0]["prompt"] == "<|im_start|>assistant\n"


def test_calls_in_a_prompt_are_shown_and_tools_would_not_be(
    calls: Exports, load: Any, tmp_path: Path
) -> None:
    done = load("openrlhf_load", file=str(calls.path(NAME)), template=TEMPLATE)["rows"]
    seen = {row["prompt"] + row[side] for row in done for side in ("chosen", "rejected")}
    assert seen == {shown(one) for one, tools in conversations()[-6:] if not tools}
    with_tools = pair("u")._replace(tools=json.dumps([TIDE]))
    file = forced(tmp_path / "bad.jsonl", PAIR_EXPORTS[NAME], with_tools)
    assert "tide" not in load("openrlhf_load", file=str(file), template=TEMPLATE)["rows"][0]["prompt"]
