"""Tools and reasoning: every turn equals a plain forward pass over transformers' own text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import tool_chats
import torch
import transformers
from tool_chats import CHATS, SHAPES, TOOLS, as_transformers_takes, for_transformers, read

from assay.core.schema import turn_positions
from assay.rewards.local.model import LocalRewardModel
from assay.rewards.protocol import Request


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_every_turn_equals_the_plain_call_one_conversation_at_a_time(shape: str, tmp_path: Path) -> None:
    marks = (*tool_chats.MARKS, *tool_chats.MARKS_OF_QWEN)
    folder = tiny.reward_model(tmp_path / "m", template=SHAPES[shape], more_added=marks, max_tokens=2048)
    model = LocalRewardModel(tiny.spec(folder))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    conversations = [read(chat) for chat in CHATS.values()]
    requests = [
        Request(one, tuple(range(len(turn_positions(one)))), tools)
        for one in conversations
        for tools in (None, json.dumps(TOOLS))
    ]
    outcomes = iter(model.score(requests))
    compared = 0
    for chat in CHATS.values():
        dicts = as_transformers_takes(chat)
        for tools in (None, TOOLS):
            for position, outcome in zip(turn_positions(read(chat)), next(outcomes), strict=True):
                text = tokenizer.apply_chat_template(
                    dicts[: position + 1], tools=for_transformers(tools), tokenize=False
                )
                ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
                with torch.inference_mode():
                    states = plain.model(ids).last_hidden_state[0, -1]
                    expected = plain.score(states).tolist()
                assert outcome.values == pytest.approx(expected, rel=1e-5, abs=1e-5), outcome.reason
                assert outcome.tokens == ids.shape[1]
                compared += 1
    assert compared == 16
