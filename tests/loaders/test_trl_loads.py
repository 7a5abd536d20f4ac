"""TRL trains one step on each of its files, and on every row of it, to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loaders.calling_chats import TEMPLATE, conversations, shown
from loaders.exported import Exports, forced
from loaders.items import item, pair

from assay.export import PAIR_EXPORTS, RECORD_EXPORTS

LOADER = "trl"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def rendered(messages: list[dict[str, Any]], *, to_answer: bool = False) -> str:
    """The starter's chat template, by hand."""
    said = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)
    return said + ("<|im_start|>assistant\n" if to_answer else "")


def test_sft_sees_every_message(exports: Exports, load: Any) -> None:
    done = load("trl_step", kind="sft", file=str(exports.path("trl-sft")))
    rows = exports.rows("trl-sft")
    assert (done["rows_in"], done["steps"]) == (len(rows), 1)
    assert [one["input_ids"] for one in done["texts"]] == [rendered(row["messages"]) for row in rows]


def test_dpo_sees_every_pair(exports: Exports, load: Any) -> None:
    done = load("trl_step", kind="dpo", file=str(exports.path("trl-preference")))
    rows = exports.rows("trl-preference")
    assert (done["rows_in"], done["steps"]) == (len(rows), 1)
    assert rows
    for row, seen in zip(rows, done["texts"], strict=True):
        prompt = rendered(row["prompt"], to_answer=True)
        for side in ("chosen", "rejected"):
            whole = seen["prompt_ids"] + seen[f"{side}_ids"]
            assert whole == prompt + f"{row[side][0]['content']}<|im_end|>\n"


def test_reward_models_see_every_pair_and_its_margin(exports: Exports, load: Any) -> None:
    done = load("trl_step", kind="reward", file=str(exports.path("trl-reward")))
    rows = exports.rows("trl-reward")
    assert (done["rows_in"], done["steps"]) == (len(rows), 1)
    assert done["margin"] == [row["margin"] for row in rows]
    for row, seen in zip(rows, done["texts"], strict=True):
        for side in ("chosen", "rejected"):
            assert seen[f"{side}_ids"] == rendered(row["prompt"] + row[side])


def test_kto_sees_every_verdict(exports: Exports, load: Any) -> None:
    done = load("trl_step", kind="kto", file=str(exports.path("trl-kto")))
    rows = exports.rows("trl-kto")
    assert (done["rows_in"], done["steps"]) == (len(rows), 1)
    assert done["label"] == [row["label"] for row in rows]
    assert {True, False} <= set(done["label"])
    for row, seen in zip(rows, done["texts"], strict=True):
        prompt = rendered(row["prompt"], to_answer=True)
        whole = seen["prompt_ids"] + seen["completion_ids"]
        assert whole == prompt + f"{row['completion'][0]['content']}<|im_end|>\n"


def test_dpo_dies_on_an_empty_prompt(load: Any, tmp_path: Path) -> None:
    file = forced(tmp_path / "bad.jsonl", PAIR_EXPORTS["trl-preference"], *[pair("")] * 4)
    assert "died" in load("trl_step", kind="dpo", file=str(file))


def test_reward_models_die_on_an_empty_prompt_or_rate_answers_to_nothing(load: Any, tmp_path: Path) -> None:
    """TRL asks one field of a set whether it holds messages: which, the process's hash seed decides."""
    file = forced(tmp_path / "bad.jsonl", PAIR_EXPORTS["trl-reward"], *[pair("")] * 4)
    done = load("trl_step", kind="reward", file=str(file))
    assert "died" in done or done["texts"][0]["chosen_ids"].startswith("<|im_start|>assistant\n")


def test_kto_dies_on_an_empty_prompt_and_trains_on_what_is_no_answer(load: Any, tmp_path: Path) -> None:
    file = forced(tmp_path / "bad.jsonl", RECORD_EXPORTS["trl-kto"], *[item("a", side="chosen")] * 4)
    assert "died" in load("trl_step", kind="kto", file=str(file))
    ends = [item("uau", side="chosen"), item("uau", side="rejected")] * 2
    file = forced(tmp_path / "ends.jsonl", RECORD_EXPORTS["trl-kto"], *ends)
    done = load("trl_step", kind="kto", file=str(file))
    # The user's message, role and all, is learned as the answer that it stands in place of.
    assert done["texts"][0]["completion_ids"] == "user\n2<|im_end|>\n"


def test_sft_shows_tools_calls_and_reasoning_as_the_input_had_them(calls: Exports, load: Any) -> None:
    done = load("trl_step", kind="sft", file=str(calls.path("trl-sft")), template=TEMPLATE)
    assert [one["input_ids"] for one in done["texts"]] == [shown(*one) for one in conversations()]


@pytest.mark.parametrize(("kind", "name"), [("dpo", "trl-preference"), ("reward", "trl-reward")])
def test_pairs_show_the_tools_of_their_prompt(kind: str, name: str, calls: Exports, load: Any) -> None:
    done = load("trl_step", kind=kind, file=str(calls.path(name)), template=TEMPLATE)
    seen = [
        "".join(one.get(part, "") for part in ("prompt_ids", f"{side}_ids"))
        for one in done["texts"]
        for side in ("chosen", "rejected")
    ]
    expected = {shown(*one) for one in conversations()[-6:]}
    # DPO's end is the end of the answer.
    assert {text.removesuffix("\n") for text in seen} == {text.removesuffix("\n") for text in expected}


def test_kto_shows_the_tools_too(calls: Exports, load: Any) -> None:
    done = load("trl_step", kind="kto", file=str(calls.path("trl-kto")), template=TEMPLATE)
    seen = [(one["prompt_ids"] + one["completion_ids"]).removesuffix("\n") for one in done["texts"]]
    assert seen == [shown(*one).removesuffix("\n") for one in conversations()[-6:]]
    assert done["label"] == [True, False] * 3
