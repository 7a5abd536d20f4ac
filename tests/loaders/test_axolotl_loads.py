"""Axolotl reads each of its files, trains where we say, and cuts no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loaders.calling_chats import TEMPLATE, body, conversations, shown
from loaders.exported import Exports, forced
from loaders.items import calling, item, pair
from loaders.page import words

from assay.export import PAIR_EXPORTS, RECORD_EXPORTS

LOADER = "axolotl"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def yaml_of(exports: Exports, name: str) -> str:
    return str(exports.path(name).with_suffix(".yaml"))


def test_sft_trains_on_every_turn_and_on_nothing_else(exports: Exports, load: Any) -> None:
    done = load("axolotl_load", kind="sft", yaml=yaml_of(exports, "axolotl-sft"), folder=str(exports.folder))
    rows = exports.rows("axolotl-sft")
    assert len(done) == len(rows)
    for row, seen in zip(rows, done, strict=True):
        said = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in row["messages"])
        assert seen["text"] == said
        trained = [one["content"] for one in row["messages"] if one["train"]]
        assert seen["trained"] == "".join(f"{text}<|im_end|>" for text in trained)


def test_the_snippet_names_the_yaml_that_is_read_above(exports: Exports) -> None:
    change, folder, then, *command = words("Axolotl")
    assert (change, folder, then) == ("cd", "out", "&&")
    assert command[:-1] == ["axolotl", "train"]
    assert str(exports.folder / command[-1]) == yaml_of(exports, "axolotl-sft")


def test_dpo_reads_every_pair_to_the_letter(exports: Exports, load: Any) -> None:
    name = "axolotl-preference"
    done = load("axolotl_load", kind="dpo", yaml=yaml_of(exports, name), folder=str(exports.folder))
    rows = exports.rows(name)
    assert len(done) == len(rows) > 0
    for row, seen in zip(rows, done, strict=True):
        for side in ("chosen", "rejected"):
            assert seen[side] == f"{row[side]['content']}<|im_end|>"
        said = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in row["messages"])
        assert seen["prompt"] == said + "<|im_start|>assistant\n"


def test_kto_reads_every_verdict_to_the_letter(exports: Exports, load: Any) -> None:
    name = "axolotl-kto"
    done = load("axolotl_load", kind="kto", yaml=yaml_of(exports, name), folder=str(exports.folder))
    rows = exports.rows(name)
    assert len(done) == len(rows) > 0
    for row, seen in zip(rows, done, strict=True):
        *before, answer = row["completion"]
        said = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in before)
        assert (seen["prompt"], seen["completion"]) == (
            said + "<|im_start|>assistant\n",
            f"{answer['content']}<|im_end|>",
        )
        assert seen["label"] == row["label"]


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("message", ""),
        ("user", ""),
        (
            " Yes.",
            "{%- for m in messages -%}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{%- endfor -%}",
        ),
        (
            "Yes.\n",
            "{%- for m in messages -%}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{%- endfor -%}",
        ),
    ],
)
def test_dpo_alters_an_answer_that_it_does_not_find(
    text: str, template: str, load: Any, tmp_path: Path
) -> None:
    file = forced(tmp_path / "bad.jsonl", PAIR_EXPORTS["axolotl-preference"], pair("u", text))
    (seen,) = load("axolotl_load", kind="dpo", file=str(file), template=template)
    assert not seen["chosen"].startswith(f"{text}<|") or len(seen["chosen"]) > len(f"{text}<|im_end|>")


def test_kto_learns_what_is_no_answer_or_answers_nothing(load: Any, tmp_path: Path) -> None:
    file = forced(tmp_path / "kto.jsonl", RECORD_EXPORTS["axolotl-kto"], item("uau", side="chosen"))
    (seen,) = load("axolotl_load", kind="kto", file=str(file))
    assert seen["completion"] == "2<|im_end|>", "the user's message is learned as the answer"
    file = forced(tmp_path / "none.jsonl", RECORD_EXPORTS["axolotl-kto"], item("a", side="chosen"))
    (seen,) = load("axolotl_load", kind="kto", file=str(file))
    assert seen["prompt"] == "<|im_start|>assistant\n", "the prompt is empty"


def test_sft_shows_tools_calls_and_reasoning_and_learns_what_the_input_does_not_mask(
    calls: Exports, load: Any
) -> None:
    done = load(
        "axolotl_load",
        kind="sft",
        yaml=yaml_of(calls, "axolotl-sft"),
        folder=str(calls.folder),
        template=TEMPLATE,
    )
    assert [one["text"] for one in done] == [shown(*one) for one in conversations()]
    learned = [
        "".join(
            f"{body(one)}<|im_end|>"
            for one in messages
            if one["role"] == "assistant" and one.get("weight") != 0
        )
        for messages, _ in conversations()
    ]
    assert [one["trained"] for one in done] == learned


def test_sft_dies_on_arguments_that_are_no_json(load: Any, tmp_path: Path) -> None:
    file = forced(tmp_path / "bad.jsonl", RECORD_EXPORTS["axolotl-sft"], calling("today"))
    with pytest.raises(AssertionError, match="JSONDecodeError"):
        load("axolotl_load", kind="sft", file=str(file), template=TEMPLATE)


def test_dpo_and_kto_lose_calls_and_tools(load: Any, tmp_path: Path) -> None:
    context = calling("{}").messages
    file = forced(
        tmp_path / "dpo.jsonl", PAIR_EXPORTS["axolotl-preference"], pair("u")._replace(prompt=context[:2])
    )
    (seen,) = load("axolotl_load", kind="dpo", file=str(file), template=TEMPLATE)
    assert "tide" not in seen["prompt"]
    lost = calling("{}")._replace(rest='{"assay_side":"chosen"}')
    file = forced(tmp_path / "kto.jsonl", RECORD_EXPORTS["axolotl-kto"], lost)
    (seen,) = load("axolotl_load", kind="kto", file=str(file))
    assert "tide" not in seen["prompt"]
