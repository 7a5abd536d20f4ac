"""Shapes of rows that public documentation shows, each with one row of our own."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from rows import chat, format_name, given_in, readings, rest, said, turns

A, B = ("assistant", "a"), ("assistant", "b")
ASKED = chat("q")
ANSWER, OTHER = {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}
PAIR = [turns("q", "a"), turns("q", "b")]


class Shape(NamedTuple):
    """A row, what is made of it, and whose shape it is."""

    whose: str
    row: dict[str, Any]
    format: str
    records: list[list[tuple[str, str]]]
    sides: str = ""
    """First letters of the sides, where records have one."""


SHAPES = [
    # TRL, docs/source/dataset_formats.md
    Shape("TRL language modelling", {"messages": chat("q", "a")}, "messages", PAIR[:1]),
    Shape("TRL prompt-completion", {"prompt": "q", "completion": "a"}, "instruction", PAIR[:1]),
    Shape("TRL prompt-completion, chat", {"prompt": ASKED, "completion": [ANSWER]}, "instruction", PAIR[:1]),
    Shape("TRL preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, "preference", PAIR, "cr"),
    Shape(
        "TRL preference, chat",
        {"prompt": ASKED, "chosen": [ANSWER], "rejected": [OTHER]},
        "preference",
        PAIR,
        "cr",
    ),
    Shape(
        "TRL preference, implicit prompt",
        {"chosen": [*ASKED, ANSWER], "rejected": [*ASKED, OTHER]},
        "preference",
        PAIR,
        "cr",
    ),
    Shape("TRL unpaired", {"prompt": "q", "completion": "a", "label": True}, "instruction", PAIR[:1]),
    Shape(
        "TRL stepwise",
        {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]},
        "stepwise",
        [turns("q", "a\nb")],
    ),
    # LLaMA-Factory, data/README.md
    Shape(
        "LLaMA-Factory Alpaca with history",
        {"instruction": "q", "input": "i", "output": "a", "system": "s", "history": [["x", "y"]]},
        "instruction",
        [turns("x", "y", "q\n\ni", "a", system="s")],
    ),
    Shape(
        "LLaMA-Factory Alpaca preference",
        {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
        "preference",
        PAIR,
        "cr",
    ),
    Shape("LLaMA-Factory KTO", {"instruction": "q", "output": "a", "kto_tag": True}, "instruction", PAIR[:1]),
    Shape(
        "LLaMA-Factory ShareGPT preference",
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        "preference",
        PAIR,
        "cr",
    ),
    # ms-swift, docs/source_en/Customization/Custom-dataset.md
    Shape(
        "ms-swift ShareGPT",
        {"system": "s", "conversation": [{"human": "q", "assistant": "a"}, {"human": "r", "assistant": "b"}]},
        "conversation",
        [turns("q", "a", "r", "b", system="s")],
    ),
    # huggingface.co/datasets/LDJnr/Capybara
    Shape(
        "Capybara",
        {"source": "x", "conversation": [{"input": "q", "output": "a"}, {"output": "b", "input": "r"}]},
        "conversation",
        [turns("q", "a", "r", "b")],
    ),
    Shape(
        "exchanges in ShareGPT's field",
        {"conversations": [{"Question": "q", "answer": "a"}, {"prompt": "r", "response": "b"}]},
        "sharegpt",
        [turns("q", "a", "r", "b")],
    ),
    Shape(
        "ms-swift query-response",
        {"system": "s", "query": "q", "response": "a", "history": [["x", "y"]]},
        "instruction",
        [turns("x", "y", "q", "a", system="s")],
    ),
    Shape(
        "ms-swift DPO",
        {"messages": chat("q", "a", system="s"), "rejected_response": "b"},
        "preference",
        [turns("q", "a", system="s"), turns("q", "b", system="s")],
        "cr",
    ),
    Shape(
        "ms-swift DPO, messages",
        {"messages": chat("q", "a"), "rejected_messages": chat("q", "b")},
        "preference",
        PAIR,
        "cr",
    ),
    Shape(
        "ms-swift DPO of a query",
        {"query": "q", "response": "a", "rejected_response": "b"},
        "preference",
        PAIR,
        "cr",
    ),
    Shape("ms-swift KTO", {"messages": chat("q", "a"), "label": False}, "messages", PAIR[:1]),
    Shape("ms-swift GRPO", {"messages": ASKED, "solution": "a"}, "messages", [turns("q")]),
    # Axolotl, docs/rlhf.qmd
    Shape(
        "Axolotl chat_template DPO",
        {"messages": ASKED, "chosen": ANSWER, "rejected": OTHER},
        "preference",
        PAIR,
        "cr",
    ),
    Shape(
        "Axolotl chatml.argilla",
        {"system": "s", "instruction": "q", "chosen_response": "a", "rejected_response": "b"},
        "preference",
        [turns("q", "a", system="s"), turns("q", "b", system="s")],
        "cr",
    ),
    Shape(
        "Axolotl chatml.intel",
        {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
        "preference",
        [turns("q", "a", system="s"), turns("q", "b", system="s")],
        "cr",
    ),
    Shape(
        "Axolotl zephyr.nectar",
        {
            "prompt": "\n\nHuman: q\n\nAssistant: ",
            "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}],
        },
        "responses",
        PAIR,
    ),
    # OpenRLHF, NeMo-RL, NeMo-Aligner
    Shape("OpenRLHF SFT", {"input": "q", "output": "a"}, "instruction", PAIR[:1]),
    Shape(
        "OpenRLHF trajectory",
        {"trajectory": ASKED, "chosen": [ANSWER], "rejected": [OTHER]},
        "preference",
        PAIR,
        "cr",
    ),
    Shape(
        "NeMo-RL preference",
        {
            "context": ASKED,
            "completions": [{"rank": 0, "completion": [ANSWER]}, {"rank": 1, "completion": [OTHER]}],
        },
        "responses",
        PAIR,
    ),
    Shape(
        "NeMo-Aligner DPO",
        {
            "prompt": "<extra_id_0>System\n\n<extra_id_1>User\nq\n<extra_id_1>Assistant\n",
            "chosen_response": "a\n<extra_id_1>",
            "rejected_response": "b\n<extra_id_1>",
            "chosen_reward": 3.5,
            "rejected_reward": 1.0,
        },
        "preference",
        PAIR,
        "cr",
    ),
    Shape(
        "NeMo-Aligner DPO, Llama-3",
        {
            "prompt": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "chosen_response": "a<|eot_id|>",
            "rejected_response": "b<|eot_id|>",
        },
        "preference",
        [turns("q", "a", system="s"), turns("q", "b", system="s")],
        "cr",
    ),
    Shape(
        "ChatML text",
        {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"},
        "nemo_texts",
        PAIR[:1],
    ),
    Shape(
        "ChatML prompt",
        {"prompt": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "completion": "a<|im_end|>\n"},
        "instruction",
        PAIR[:1],
    ),
    Shape(
        "NeMo-Aligner regression",
        {
            "text": "<extra_id_0>System\ns\n<extra_id_1>User\nq\n<extra_id_1>Assistant\na\n<extra_id_2>",
            "label": [-100, -100, -100, -100, 4, 3.5, 4, 2, 2],
        },
        "nemo_texts",
        [turns("q", "a", system="s")],
    ),
    Shape(
        "NeMo-Aligner reward model pairs",
        {"text": "<extra_id_0>System\n\n<extra_id_1>User\nq\n<extra_id_1>Assistant\na\n<extra_id_1>"},
        "nemo_texts",
        PAIR[:1],
    ),
    # Data sets' cards
    Shape(
        "HelpSteer2, several turns",
        {"prompt": "q\n<extra_id_1>Assistant\na\n<extra_id_1>User\nr", "response": "b", "helpfulness": 4},
        "instruction",
        [turns("q", "a", "r", "b")],
    ),
    Shape(
        "HelpSteer3",
        {"context": ASKED, "response1": "a", "response2": "b", "overall_preference": -2},
        "helpsteer_pairs",
        PAIR,
        "cr",
    ),
    Shape(
        "SimPO's llama3-ultrafeedback",
        {
            "prompt": "q",
            "all_generated_responses": ["a", "b"],
            "all_rm_scores": [0.5, 0.25],
            "chosen": chat("q", "a"),
            "rejected": chat("q", "b"),
        },
        "responses",
        PAIR,
    ),
    Shape(
        "LMSYS 55k (texts of lists)",
        {"prompt": '["q", "r"]', "response_a": '["a", "c"]', "response_b": '["b", "d"]', "winner_model_b": 1},
        "pairs",
        [turns("q", "a", "r", "c"), turns("q", "b", "r", "d")],
        "rc",
    ),
    Shape(
        "Chatbot Arena 33k",
        {"conversation_a": chat("q", "a"), "conversation_b": chat("q", "b"), "winner": "tie"},
        "pairs",
        PAIR,
    ),
    Shape(
        "Arena 140k (parts)",
        {
            "conversation_a": [
                {"role": "user", "content": [{"type": "text", "text": "q", "image": None}]},
                ANSWER,
            ],
            "conversation_b": [*ASKED, OTHER],
            "winner": "model_a",
        },
        "pairs",
        PAIR,
        "cr",
    ),
    Shape(
        "a winner by its answer's name",
        {"prompt": "q", "response_1": "a", "response_2": "b", "winner": "Response_2"},
        "pairs",
        PAIR,
        "rc",
    ),
    Shape(
        "a winner by its model",
        {"prompt": "q", "response_1": "a", "response_2": "b", "winner": "model_a"},
        "pairs",
        PAIR,
        "cr",
    ),
    Shape(
        "a winner by its letter",
        {"prompt": "q", "answer_a": "a", "answer_b": "b", "winner": "A"},
        "pairs",
        PAIR,
        "cr",
    ),
    Shape(
        "a tie, and labels of another format",
        {
            "prompt": "q",
            "answer_a": "a",
            "answer_b": "b",
            "winner": "tie (bothbad)",
            "labels": 1,
            "label": "A=B",
        },
        "pairs",
        PAIR,
    ),
    Shape(
        "JudgeBench",
        {"question": "q", "response_A": "a", "response_B": "b", "label": "A>B"},
        "pairs",
        PAIR,
    ),
    Shape(
        "PKU-SafeRLHF",
        {
            "prompt": "q",
            "response_0": "a",
            "response_1": "b",
            "better_response_id": 1,
            "safer_response_id": 0,
        },
        "pairs",
        PAIR,
        "rc",
    ),
    Shape(
        "SHP",
        {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 0, "score_A": 2, "score_B": 5},
        "pairs",
        PAIR,
        "rc",
    ),
    Shape(
        "UltraFeedback, distilabel",
        {"instruction": "q", "generations": ["a", "b"], "ratings": [4.0, None], "model_name": "m"},
        "responses",
        PAIR,
    ),
    Shape(
        "UltraFeedback",
        {"instruction": "q", "completions": [{"response": "a", "overall_score": 7.5}, {"response": "b"}]},
        "responses",
        PAIR,
    ),
    Shape(
        "Anthropic HH",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        "preference",
        PAIR,
        "cr",
    ),
    Shape(
        "SmolTalk2",
        {
            "messages": chat("q", "a"),
            "chat_template_kwargs": {"custom_instructions": "s", "python_tools": []},
        },
        "messages",
        [turns("q", "a", system="s")],
    ),
    Shape(
        "Dolly", {"instruction": "q", "context": "c", "response": "a"}, "instruction", [turns("q\n\nc", "a")]
    ),
    # OpenAI, platform.openai.com/docs/guides/batch and /fine-tuning
    Shape(
        "OpenAI Batch output with its request",
        {
            "custom_id": "1",
            "body": {"model": "m", "messages": ASKED},
            "response": {"status_code": 200, "body": {"choices": [{"index": 0, "message": ANSWER}]}},
            "error": None,
        },
        "openai_batch",
        PAIR[:1],
    ),
    Shape(
        "OpenAI Batch output of /v1/responses with its request",
        {
            "custom_id": "1",
            "request": {"body": {"instructions": "s", "input": "q"}},
            "response": {
                "body": {
                    "output": [
                        {"type": "reasoning", "summary": []},
                        {
                            "role": "assistant",
                            "content": [{"type": "output_text", "text": "a", "annotations": []}],
                        },
                    ]
                }
            },
        },
        "openai_batch",
        [turns("q", "a", system="s")],
    ),
    Shape(
        "OpenAI Batch request",
        {"custom_id": "1", "method": "POST", "body": {"messages": ASKED}},
        "openai_batch",
        [turns("q")],
    ),
    Shape(
        "OpenAI chat completion beside its messages",
        {"messages": ASKED, "choices": [{"index": 0, "message": ANSWER}, {"index": 1, "message": OTHER}]},
        "messages",
        PAIR,
    ),
    Shape(
        "OpenAI DPO fine-tuning",
        {
            "input": {"messages": ASKED},
            "preferred_output": [ANSWER],
            "non_preferred_output": [OTHER],
        },
        "preference",
        PAIR,
        "cr",
    ),
]


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.whose for shape in SHAPES])
def test_a_public_shape_is_read_whole(shape: Shape) -> None:
    found = readings(shape.row)
    assert format_name(shape.row) == shape.format
    assert [reading.problem for reading in found] == [None] * len(found)
    assert [said(reading) for reading in found] == shape.records
    assert "".join(rest(reading).get("assay_side", "")[:1] for reading in found) == shape.sides


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"custom_id": "1", "response": {"body": {"choices": [{"message": ANSWER}]}}},
            "missing_prompt: an output of",
        ),
        ({"custom_id": "1", "body": {"messages": ASKED}, "response": {"body": {"error": {}}}}, "no_answer: "),
        ({"prompt": "q", "response_a": 5, "response_b": "b"}, "wrong_type: in 'response_a'"),
    ],
)
def test_what_cannot_be_rated_is_refused_with_a_reason(row: dict[str, Any], reason: str) -> None:
    assert (readings(row)[0].problem or "").startswith(reason)


@pytest.mark.parametrize("field", ["response", "completion", "answer"])
@pytest.mark.parametrize("chats", ["messages", "conversation", "conversations"])
def test_an_answer_beside_messages_is_the_last_message(field: str, chats: str) -> None:
    (reading,) = readings({chats: ASKED, field: "a", "id": 1})
    assert (said(reading), rest(reading)) == (turns("q", "a"), {"id": 1})
    several = readings({chats: ASKED, "responses": ["a", {"content": "b", "score": 2}]})
    assert [said(reading) for reading in several] == PAIR
    assert given_in(several[1]) == [None, {"score": 2.0}]


def test_an_answer_beside_messages_that_end_with_one_is_carried_along() -> None:
    (reading,) = readings({"messages": chat("q", "a"), "response": "b"})
    assert (said(reading), rest(reading)) == (turns("q", "a"), {"response": "b"})


def test_a_prompt_beside_messages_that_are_an_answer_goes_before_them() -> None:
    (reading,) = readings({"prompt": "q", "messages": [ANSWER]})
    assert said(reading) == turns("q", "a")


def test_markers_that_split_no_prompt_stay_text() -> None:
    for prompt in (
        "q <extra_id_1> r",
        "q\n<extra_id_1>Assistant\na",
        "q\n<extra_id_1>Narrator\na\n<extra_id_1>User\nr",
    ):
        (reading,) = readings({"prompt": prompt, "response": "b"})
        assert said(reading) == turns(prompt, "b")
        assert reading.more is None
