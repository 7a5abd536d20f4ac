"""Shapes of rows with tools, or with reasoning, that public documentation shows; each row is our own."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from rows import chat, readings, rest

from assay.core.schema import roles_of
from assay.storage.conversations import conversation_json

FUNCTION = {"name": "depth", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
ARGUMENTS = {"at": "quay"}
SPOKEN = json.dumps({"name": "depth", "arguments": ARGUMENTS})
CALL = {"type": "function", "function": {"name": "depth", "arguments": ARGUMENTS}}
#: OpenAI writes arguments as a text.
TEXT_CALL = {"type": "function", "function": {"name": "depth", "arguments": json.dumps(ARGUMENTS)}}
ASKED: dict[str, Any] = {"role": "user", "content": "q"}
RESULT: dict[str, Any] = {"role": "tool", "content": "4"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "a"}
THINKING = "<think>t</think>a"


def calling(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", **fields, "tool_calls": list(calls)}


def spoken(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": speaker, "value": text} for speaker, text in pairs]


class Shape(NamedTuple):
    """A row, the messages that are made of it, and whose shape it is."""

    whose: str
    row: dict[str, Any]
    records: list[list[dict[str, Any]]]
    roles: str
    """Of the first record: ``c`` is a call, and every ``a`` is a turn."""
    has_tools: bool = True


CALLED = [ASKED, calling(CALL), RESULT, ANSWER]
THOUGHT = [[ASKED, {"role": "assistant", "content": THINKING}]]

SHAPES = [
    # NousResearch/hermes-function-calling-v1: the system message shows the tools, so that nothing else does.
    Shape(
        "Hermes function calling",
        {
            "conversations": spoken(
                ("system", f"s <tools>[{json.dumps(TOOL)}]</tools>"),
                ("human", "q"),
                ("gpt", f"<tool_call>{SPOKEN}</tool_call>"),
                ("tool", "4"),
                ("gpt", "a"),
            ),
            "tools": json.dumps([TOOL]),
        },
        [
            [
                {"role": "system", "content": f"s <tools>[{json.dumps(TOOL)}]</tools>"},
                ASKED,
                {"role": "assistant", "content": f"<tool_call>{SPOKEN}</tool_call>"},
                RESULT,
                ANSWER,
            ]
        ],
        "suata",
        has_tools=False,
    ),
    # Salesforce/xlam-function-calling-60k: calls, and no answer to rate.
    Shape(
        "xLAM",
        {"query": "q", "answers": f"[{SPOKEN}]", "tools": json.dumps([FUNCTION])},
        [[ASKED, calling(CALL)]],
        "uc",
    ),
    Shape(
        "xLAM as objects",
        {"query": "q", "answers": [json.loads(SPOKEN)], "tools": [FUNCTION]},
        [[ASKED, calling(CALL)]],
        "uc",
    ),
    Shape(
        "ToolACE",
        {
            "system": "s",
            "conversations": spoken(
                ("user", "q"), ("assistant", "[depth(at='quay')]"), ("tool", "4"), ("assistant", "a")
            ),
        },
        [
            [
                {"role": "system", "content": "s"},
                ASKED,
                {"role": "assistant", "content": "[depth(at='quay')]"},
                RESULT,
                ANSWER,
            ]
        ],
        "suata",
        has_tools=False,
    ),
    Shape(
        "ToolBench",
        {
            "conversations": spoken(
                ("user", "q"), ("assistant", "Action: depth"), ("function", "4"), ("assistant", "a")
            )
        },
        [[ASKED, {"role": "assistant", "content": "Action: depth"}, RESULT, ANSWER]],
        "uata",
        has_tools=False,
    ),
    # Locutusque/function-calling-chatml, made of Glaive function calling v2.
    Shape(
        "Glaive function calling v2 as ShareGPT",
        {
            "conversations": spoken(
                ("human", "q"), ("function-call", SPOKEN), ("function-response", "4"), ("gpt", "a")
            )
        },
        [CALLED],
        "ucta",
        has_tools=False,
    ),
    # LLaMA-Factory, data/README.md; APIGen-MT-5k has the same.
    Shape(
        "LLaMA-Factory, APIGen-MT",
        {
            "conversations": spoken(
                ("human", "q"), ("function_call", SPOKEN), ("observation", "4"), ("gpt", "a")
            ),
            "tools": json.dumps([FUNCTION]),
        },
        [CALLED],
        "ucta",
    ),
    Shape(
        "LLaMA-Factory with reasoning before a call",
        {
            "conversations": spoken(
                ("human", "q"),
                ("function_call", f"<think>t</think>{SPOKEN}"),
                ("observation", "4"),
                ("gpt", "a"),
            ),
            "tools": [FUNCTION],
        },
        [[ASKED, {"role": "assistant", "reasoning_content": "t", "tool_calls": [CALL]}, RESULT, ANSWER]],
        "ucta",
    ),
    # OpenAI, guides/supervised-fine-tuning and the older functions.
    Shape(
        "OpenAI fine-tuning with parallel calls",
        {
            "messages": [
                ASKED,
                calling({"id": "1", **TEXT_CALL}, {"id": "2", **TEXT_CALL}),
                {**RESULT, "tool_call_id": "1"},
                {**RESULT, "tool_call_id": "2"},
                {**ANSWER, "weight": 1},
            ],
            "parallel_tool_calls": True,
            "tools": [TOOL],
        },
        [
            [
                ASKED,
                calling({"id": "1", **TEXT_CALL}, {"id": "2", **TEXT_CALL}),
                {**RESULT, "tool_call_id": "1"},
                {**RESULT, "tool_call_id": "2"},
                {**ANSWER, "weight": 1},
            ]
        ],
        "uctta",
    ),
    Shape(
        "OpenAI fine-tuning with functions",
        {
            "messages": [
                ASKED,
                {"role": "assistant", "content": None, "function_call": TEXT_CALL["function"]},
                {"role": "function", "name": "depth", "content": "4"},
                ANSWER,
            ],
            "functions": [FUNCTION],
        },
        [[ASKED, calling(TEXT_CALL, content=None), {**RESULT, "name": "depth"}, ANSWER]],
        "ucta",
    ),
    Shape(
        "Mistral fine-tuning",
        {
            "messages": [
                ASKED,
                calling({"id": "TX92Jm8Zi", **TEXT_CALL}),
                {**RESULT, "tool_call_id": "TX92Jm8Zi"},
                ANSWER,
            ],
            "tools": [TOOL],
        },
        [[ASKED, calling({"id": "TX92Jm8Zi", **TEXT_CALL}), {**RESULT, "tool_call_id": "TX92Jm8Zi"}, ANSWER]],
        "ucta",
    ),
    Shape(
        "Qwen-Agent",
        {
            "messages": [
                {"role": "user", "content": [{"text": "q"}]},
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning_content": "t",
                    "function_call": TEXT_CALL["function"],
                },
                {"role": "function", "name": "depth", "content": "4"},
                {"role": "assistant", "content": [{"text": "a"}]},
            ],
            "functions": [FUNCTION],
        },
        [[ASKED, calling(TEXT_CALL, content="", reasoning_content="t"), {**RESULT, "name": "depth"}, ANSWER]],
        "ucta",
    ),
    # ms-swift, docs/source_en/Instruction/Agent-support.md: parallel calls, and what is said before them.
    Shape(
        "ms-swift agent",
        {
            "tools": json.dumps([TOOL]),
            "messages": [
                ASKED,
                {"role": "assistant", "content": "<think>t</think>\n"},
                {"role": "tool_call", "content": SPOKEN},
                {"role": "tool_call", "content": SPOKEN},
                {"role": "tool_response", "content": "4"},
                {"role": "tool_response", "content": "4"},
                ANSWER,
            ],
        },
        [[ASKED, calling(CALL, CALL, content="<think>t</think>\n"), RESULT, RESULT, ANSWER]],
        "uctta",
    ),
    # TRL, docs/source/dataset_formats.md, "Tool calling"
    Shape(
        "TRL tool calling",
        {
            "messages": [ASKED, calling(CALL), {**RESULT, "name": "depth"}, ANSWER],
            "tools": json.dumps([TOOL]),
        },
        [[ASKED, calling(CALL), {**RESULT, "name": "depth"}, ANSWER]],
        "ucta",
    ),
    Shape(
        "TRL preference with tools",
        {"prompt": [ASKED], "chosen": [calling(CALL), RESULT, ANSWER], "rejected": [ANSWER], "tools": [TOOL]},
        [CALLED, [ASKED, ANSWER]],
        "ucta",
    ),
    # Reasoning: open-thoughts/OpenThoughts-114k, and rows distilled from DeepSeek-R1.
    Shape(
        "OpenThoughts",
        {
            "system": "s",
            "conversations": spoken(("user", "q"), ("assistant", "<|begin_of_thought|>t<|end_of_thought|>a")),
        },
        [
            [
                {"role": "system", "content": "s"},
                ASKED,
                {"role": "assistant", "content": "<|begin_of_thought|>t<|end_of_thought|>a"},
            ]
        ],
        "sua",
        has_tools=False,
    ),
    Shape("DeepSeek-R1 distilled", {"messages": chat("q", THINKING)}, THOUGHT, "ua", has_tools=False),
    Shape(
        "Llama-Nemotron post-training",
        {"input": [ASKED], "output": THINKING, "reasoning": "on", "system_prompt": "detailed thinking on"},
        [[{"role": "system", "content": "detailed thinking on"}, *THOUGHT[0]]],
        "sua",
        has_tools=False,
    ),
    Shape(
        "gpt-oss, Multilingual-Thinking",
        {
            "messages": [
                {"role": "user", "content": "q", "thinking": None},
                {"role": "assistant", "content": "a", "thinking": "t"},
            ],
            "analysis": "t",
        },
        [[ASKED, {**ANSWER, "thinking": "t"}]],
        "ua",
        has_tools=False,
    ),
    Shape(
        "reasoning beside an answer",
        {"prompt": "q", "reasoning_content": "t", "response": "a"},
        [[ASKED, {**ANSWER, "reasoning_content": "t"}]],
        "ua",
        has_tools=False,
    ),
    Shape(
        "s1K, with its names mapped",
        {"prompt": "q", "solution": "g", "thinking_trajectories": ["t"], "response": "a"},
        [[ASKED, ANSWER]],
        "ua",
        has_tools=False,
    ),
]


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.whose for shape in SHAPES])
def test_a_public_shape_with_tools_or_reasoning_is_read_whole(shape: Shape) -> None:
    found = readings(shape.row)
    assert [reading.problem for reading in found] == [None] * len(found)
    assert [json.loads(conversation_json(reading.messages)) for reading in found] == shape.records
    assert roles_of(found[0].messages) == shape.roles
    for reading in found:
        assert (reading.tools is not None) == shape.has_tools
        assert reading.tools is None or json.loads(reading.tools) == [TOOL]


def test_calls_that_are_messages_of_their_own_stay_apart_where_they_hold_more() -> None:
    first, second = (
        {"role": "tool_call", "content": SPOKEN},
        {"role": "tool_call", "content": SPOKEN, "id": 2},
    )
    (reading,) = readings({"messages": [ASKED, first, second, RESULT, ANSWER]})
    assert roles_of(reading.messages) == "uccta"
    (plain,) = readings({"messages": [ASKED, calling(CALL), calling(CALL), RESULT, ANSWER]})
    assert roles_of(plain.messages) == "uccta"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "thinking": " ", "response": "a"},
        {"prompt": "q", "thinking": {"tokens": 5}, "response": "a"},
        {"messages": chat("q", "a"), "thinking": "t"},
        {"prompt": "q", "thinking": "t", "responses": ["a", "b"]},
        {"prompt": "q", "thinking": "t", "response": {"content": "a", "reasoning": "u"}},
    ],
)
def test_what_is_not_known_to_be_the_reasoning_of_the_answer_is_carried_along(row: dict[str, Any]) -> None:
    for reading in readings(row):
        assert rest(reading)["thinking"] == row["thinking"]
