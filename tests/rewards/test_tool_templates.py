"""Tools, calls and reasoning reach chat templates as transformers hands them over, or a reason says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tool_chats
from tool_chats import (
    CHATS,
    SHAPES,
    TOOLS,
    answer,
    as_transformers_takes,
    call,
    calling,
    for_transformers,
    read,
    result,
    user,
)

from assay.core.schema import Message, turn_positions
from assay.rewards.protocol import Request
from assay.rewards.rendering import PairRenderer, Renderer
from assay.rewards.templates import Chain, ChatTemplate, template_in


def renderer(template: str, *more: str) -> Renderer:
    from tokenizers import AddedToken

    tokenizer = tiny.tokenizer(template)
    tokenizer.add_tokens([AddedToken(one, normalized=False, special=one[1] == "|") for one in more])
    return Renderer(tokenizer, max_tokens=4000, over_length="quarantine")


def refusals(template: str, chat: list[dict[str, Any]], tools: object = None) -> dict[int, str]:
    messages = read(chat)
    turns = tuple(range(len(turn_positions(messages))))
    asked = Request(messages, turns, None if tools is None else json.dumps(tools))
    return renderer(template, *tool_chats.MARKS).render([asked])[0].refused


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_every_text_is_the_one_that_transformers_gives(shape: str, name: str, tools: Any) -> None:
    tokenizer = tiny.tokenizer(SHAPES[shape])
    chat, dicts = CHATS[name], as_transformers_takes(CHATS[name])
    counts = tuple(range(1 + (chat[0]["role"] == "system"), len(chat) + 1))
    expected = [tokenizer.apply_chat_template(dicts[:count], tools=tools, tokenize=False) for count in counts]
    chain = Chain(read(chat), counts, None if tools is None else json.dumps(tools))
    assert ChatTemplate.of(tokenizer).render([chain]) == [expected]


@pytest.mark.parametrize("content", ["", None, "missing"])
def test_what_stands_in_place_of_a_content_reaches_the_template(content: str | None) -> None:
    template = (
        "{% for m in messages %}{% if m.content is not defined %}missing{% elif m.content is none %}null"
        "{% else %}'{{ m.content }}'{% endif %}{{ m | tojson }}{% endfor %}"
    )
    chat = [user("Hi"), calling(call("tide", {}), content=content), answer("x")]
    if content == "missing":
        del chat[1]["content"]
    tokenizer = tiny.tokenizer(template)
    text = ChatTemplate.of(tokenizer).text(read(chat[1:2]))
    assert str(text).split("{")[0] == {"": "''", None: "null"}.get(content, "missing")


def test_fields_that_are_null_or_no_templates_business_are_not_handed_over() -> None:
    chat = [{**user("Hi"), "name": None, "weight": 0, "tool_calls": None}, {**answer("Yes"), "train": False}]
    tokenizer = tiny.tokenizer("{% for m in messages %}{{ m.keys() | list }}{% endfor %}")
    assert ChatTemplate.of(tokenizer).text(read(chat)) == "['role', 'content']" * 2


def test_tools_have_a_template_of_their_own_where_the_model_has_one(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer("")
    tokenizer.chat_template = {"default": tiny.CHATML, "tool_use": tool_chats.QWEN3}
    dicts = CHATS["a call and an answer"]
    expected = tokenizer.apply_chat_template(dicts, tools=for_transformers(TOOLS), tokenize=False)
    plain = tokenizer.apply_chat_template(dicts[:1], tokenize=False)
    folders = []
    for new in (True, False):
        folders.append(tmp_path / str(new))
        tokenizer.save_pretrained(folders[-1], save_jinja_files=new)
    for template in (ChatTemplate.of(tokenizer), *map(template_in, folders)):
        assert template is not None
        assert template.text(read(dicts), json.dumps(TOOLS)) == expected
        chains = [Chain(read(dicts), (4,), json.dumps(TOOLS)), Chain(read(dicts[:1]), (1,))]
        assert template.render(chains) == [[expected], [plain]]


#: Templates, conversations, whether they are given tools, and what is reported by turn.
HIDDEN = {
    "tools": (tiny.CHATML, [user("Hi"), answer("Hello")], TOOLS, {0: "unseen_tools: the chat template"}),
    "tools of which one parameter is not written": (
        tiny.CHATML + "{% if tools %}{% for t in tools %}{{ t.function.name }}{{ t.function.description }}"
        "{% endfor %}{% endif %}",
        [user("Hi"), answer("Hello")],
        TOOLS,
        {0: "unseen_tools: the chat template does not show the tools that the assistant could call"},
    ),
    "calls": (
        tiny.CHATML.replace("message.content", "message.content or ''"),
        [
            user("Hi"),
            answer("Hello"),
            user("Rain?"),
            calling(call("weather", {"a": "b"})),
            result("y"),
            answer("Y"),
        ],
        None,
        {1: "unseen_calls: the chat template does not show the calls of message 4 (assistant)"},
    ),
    "calls, by a template that trips over null": (
        tiny.CHATML.replace("{{ message.content }}", "{{ '' + message.content }}"),
        [user("Rain?"), calling(call("weather", {"a": "b"})), result("y"), answer("Y")],
        None,
        {0: "unseen_calls: the chat template does not show the calls of message 2 (assistant)"},
    ),
    "arguments of calls": (
        tiny.CHATML.replace(
            "message.content",
            "message.content or (message.tool_calls | map(attribute='function.name') | first)",
        ),
        [user("Rain?"), calling(call("weather", {"a": "b"})), result("y"), answer("Y")],
        None,
        {0: "unseen_calls: the chat template does not show the calls of message 2 (assistant)"},
    ),
    "what is said beside a call": (
        tool_chats.LLAMA31,
        [
            user("Rain?"),
            calling(call("weather", {"a": "b"}), content="Let me see."),
            result("y"),
            answer("Y"),
        ],
        TOOLS,
        {
            0: "unseen_calls: the chat template does not show the text beside the calls of message 2",
            1: "unseen_calls: the chat template does not show the text beside the calls of message 2",
        },
    ),
    "results": (
        "{% for m in messages if m.role != 'tool' %}{{ m.content or m.tool_calls | tojson }}{% endfor %}",
        [user("Rain?"), calling(call("weather", {"a": "b"})), result("y"), answer("Y")],
        None,
        {0: "unseen_calls: the chat template does not show the results of the calls of message 2"},
    ),
    "what a template raises": (
        tool_chats.LLAMA31,
        [
            user("Rain?"),
            calling(call("weather", {"a": "b"}), call("tide", {}, 2)),
            result("y"),
            result("y", 2),
            answer("Y"),
        ],
        TOOLS,
        {0: "template_refused: This model only supports single tool-calls at once!"},
    ),
    "the second of two calls": (
        tiny.CHATML.replace("message.content", "message.content or message.tool_calls[0] | tojson"),
        [
            user("Rain?"),
            calling(call("weather", {"a": "b"}), call("tide", {}, 2)),
            result("y"),
            result("y", 2),
            answer("Y"),
        ],
        None,
        {0: "unseen_calls: the chat template does not show the calls of message 2 (assistant)"},
    ),
    "calls whose content is no null": (
        tiny.CHATML.replace(
            "message.content", "(message.tool_calls | tojson) if message.content is none else message.content"
        ),
        [user("Rain?"), calling(call("weather", {"a": "b"}), content=""), result("y"), answer("Y")],
        None,
        {0: "unseen_calls: the chat template does not show the calls of message 2 (assistant)"},
    ),
    "tools where no user asks": (
        tool_chats.MISTRAL,
        [answer("Hello")],
        TOOLS,
        {0: "unseen_tools: the chat template does not show the tools that the assistant could call"},
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_turn_whose_tools_or_calls_a_template_leaves_out_is_refused_with_that_reason(name: str) -> None:
    template, chat, tools, expected = HIDDEN[name]
    found = refusals(template, chat, tools)
    assert found.keys() == expected.keys()
    assert all(found[turn].startswith(words) for turn, words in expected.items()), found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CHATS)
def test_what_a_template_shows_is_not_refused(shape: str, name: str) -> None:
    assert refusals(SHAPES[shape], CHATS[name], TOOLS) == {}


def test_calls_whose_content_is_null_are_shown_where_a_template_asks_for_that() -> None:
    deepseek = tiny.CHATML.replace(
        "message.content", "(message.tool_calls | tojson) if message.content is none else message.content"
    )
    assert refusals(deepseek, CHATS["a call and an answer"]) == {}


FORGED = "<|inst|>"


def with_call(arguments: object, said: str = "y") -> list[dict[str, Any]]:
    return [user("Rain?"), calling(call("weather", arguments)), result(said), answer("Y")]


def named(**function: object) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", **function}}]


@pytest.mark.parametrize(
    ("chat", "tools", "place"),
    [
        (with_call({"a": FORGED}), TOOLS, "message 2"),
        (with_call({FORGED: "a"}), TOOLS, "message 2"),
        (with_call({"a": {"type": [FORGED]}}), TOOLS, "message 2"),
        (with_call(json.dumps({"a": FORGED})), None, "message 2"),
        (with_call({}, FORGED), TOOLS, "message 3"),
        ([user("Hi"), answer("Y")], named(description=FORGED), "the tools"),
        ([user("Hi"), answer("Y")], named(parameters={"properties": {FORGED: {}}}), "the tools"),
        ([user("Hi"), answer("Y", reasoning_content=FORGED)], None, "message 2"),
    ],
)
def test_control_tokens_in_calls_tools_and_reasoning_are_found(
    chat: list[dict[str, Any]], tools: Any, place: str
) -> None:
    found = refusals(tool_chats.QWEN3, chat, tools)
    assert found[0].startswith(f"forged_control_token: '{FORGED}' in {place}"), found


def test_an_encoder_is_shown_neither_tools_nor_calls() -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = tiny.tokenizer(tiny.CHATML)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    pairs = PairRenderer(tokenizer, max_tokens=500, over_length="quarantine")
    called = read(CHATS["a call and an answer"])
    plain = (Message("user", "Hi"), Message("assistant", "Hello"))
    asked = [Request(called, (0,)), Request(plain, (0,), json.dumps(TOOLS)), Request(plain, (0,))]
    reasons = [one.refused for one in pairs.render(asked)]
    assert reasons[0][0].startswith("unseen_tools: this model is shown a question and an answer")
    assert reasons[1] == reasons[0]
    assert reasons[2] == {}
