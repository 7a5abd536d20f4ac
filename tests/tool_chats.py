"""Chat templates in the shapes of Llama 3.1's, Qwen3's and Mistral's, and conversations with tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from assay.core.schema import Conversation
from assay.read.formats import KNOWN_NAMES
from assay.read.formats.reading import chat_in

#: Tools go into the first user message; one call a message; what is said beside a call is left out.
LLAMA31 = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|begin|><|header|>system<|/header|>\n\n' }}"
    "{%- if tools is not none %}{{- 'Environment: ipython\n' }}{%- endif %}{{- system + '<|eot|>' }}"
    "{%- if tools is not none %}{%- set first = messages[0].content | trim %}"
    "{%- set messages = messages[1:] %}{{- '<|header|>user<|/header|>\n\nFunctions:\n' }}"
    "{%- for t in tools %}{{- t | tojson(indent=4) + '\n\n' }}{%- endfor %}{{- first + '<|eot|>' }}"
    "{%- endif %}{%- for message in messages %}"
    "{%- if not (message.role == 'tool' or 'tool_calls' in message) %}"
    "{{- '<|header|>' + message.role + '<|/header|>\n\n' + message.content | trim + '<|eot|>' }}"
    "{%- elif 'tool_calls' in message %}{%- if not message.tool_calls | length == 1 %}"
    "{{- raise_exception('This model only supports single tool-calls at once!') }}{%- endif %}"
    "{%- set call = message.tool_calls[0].function %}"
    '{{- \'<|header|>assistant<|/header|>\n\n{"name": "\' + call.name + \'", "parameters": \' }}'
    "{{- call.arguments | tojson + '}<|eot|>' }}"
    "{%- else %}{{- '<|header|>ipython<|/header|>\n\n' + (message.content | tojson) + '<|eot|>' }}"
    "{%- endif %}{%- endfor %}"
)
#: Reasoning is shown after the last question alone; text, calls and results have marks of their own.
QWEN3 = (
    "{%- if tools %}{{- '<|im_start|>system\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}"
    "{{- '<tools>' }}{%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}"
    "{{- '\n</tools><|im_end|>\n' }}{%- elif messages[0].role == 'system' %}"
    "{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(last=messages | length - 1, found=false) %}"
    "{%- for message in messages[::-1] %}{%- set index = messages | length - 1 - loop.index0 %}"
    "{%- if not ns.found and message.role == 'user' %}{%- set ns.last = index %}"
    "{%- set ns.found = true %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}"
    "{%- set content = message.content if message.content is string else '' %}"
    "{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}"
    "{%- elif message.role == 'assistant' %}{%- set reasoning = '' %}"
    "{%- if message.reasoning_content is string %}{%- set reasoning = message.reasoning_content %}"
    "{%- elif '</think>' in content %}"
    "{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n' }}{%- if loop.index0 > ns.last and (loop.last or reasoning) %}"
    "{{- '<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' }}{%- endif %}{{- content }}"
    "{%- if message.tool_calls %}{%- for call in message.tool_calls %}"
    "{%- if not loop.first or content %}{{- '\n' }}{%- endif %}"
    "{%- if call.function %}{%- set call = call.function %}{%- endif %}"
    '{{- \'<tool_call>\n{"name": "\' + call.name + \'", "arguments": \' }}'
    "{%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}"
    "{%- endif %}{{- '}\n</tool_call>' }}{%- endfor %}{%- endif %}{{- '<|im_end|>\n' }}"
    "{%- elif message.role == 'tool' %}{{- '<|im_start|>user\n<tool_response>\n' + content }}"
    "{{- '\n</tool_response><|im_end|>\n' }}{%- endif %}{%- endfor %}"
)
#: Tools stand before the last user message, so no prefix of a longer conversation holds them in its place.
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{%- set users = loop_messages | selectattr('role', 'equalto', 'user') | list %}{{- '<|begin|>' }}"
    "{%- for message in loop_messages %}{%- if message.role == 'user' %}"
    "{%- if tools is not none and message == users[-1] %}{{- '<|tools|>[' }}"
    "{%- for tool in tools %}{%- set tool = tool.function %}"
    '{{- \'{"type": "function", "function": {\' }}{%- for key, val in tool.items() if key != \'return\' %}'
    "{%- if val is string %}{{- '\"' + key + '\": \"' + val + '\"' }}"
    "{%- else %}{{- '\"' + key + '\": ' + val | tojson }}{%- endif %}"
    "{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- '}}' }}"
    "{%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']' }}{%- endif %}{%- endfor %}{{- '<|/tools|>' }}"
    "{%- endif %}{%- if loop.last and system is defined %}"
    "{{- '<|inst|>' + system + '\n\n' + message.content + '<|/inst|>' }}"
    "{%- else %}{{- '<|inst|>' + message.content + '<|/inst|>' }}{%- endif %}"
    "{%- elif message.tool_calls is defined and message.tool_calls is not none %}{{- '<|calls|>[' }}"
    "{%- for call in message.tool_calls %}{%- set out = call.function | tojson %}{{- out[:-1] }}"
    "{%- if not call.id is defined or call.id | length != 9 %}"
    "{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}"
    "{{- ', \"id\": \"' + call.id + '\"}' }}"
    "{%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']<|eos|>' }}{%- endif %}{%- endfor %}"
    "{%- elif message.role == 'assistant' %}{{- message.content + '<|eos|>' }}"
    "{%- elif message.role == 'tool' %}{{- '<|results|>{\"content\": ' + message.content | string }}"
    "{%- if not message.tool_call_id is defined or message.tool_call_id | length != 9 %}"
    "{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}"
    "{{- ', \"call_id\": \"' + message.tool_call_id + '\"}<|/results|>' }}"
    "{%- endif %}{%- endfor %}"
)
SHAPES = {"llama-3.1": LLAMA31, "qwen3": QWEN3, "mistral": MISTRAL}
#: Tokens of their own that these templates write.
MARKS = ("<|tools|>", "<|/tools|>", "<|calls|>", "<|results|>", "<|/results|>")
MARKS_OF_QWEN = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "Its name"},
                    "type": {"type": "string", "enum": ["now", "tomorrow"]},
                },
                "required": ["place"],
            },
        },
    },
    {"type": "function", "function": {"name": "tide", "description": "High water", "parameters": {}}},
]


def call(name: str, arguments: object, number: int = 1) -> dict[str, Any]:
    return {
        "id": f"call{number:05}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def calling(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(text: str, number: int = 1) -> dict[str, Any]:
    return {"role": "tool", "name": "weather", "tool_call_id": f"call{number:05}", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, **fields: object) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


#: Conversations as rows hold them.
CHATS: dict[str, list[dict[str, Any]]] = {
    "a call and an answer": [
        user("Is it raining in Brest?"),
        calling(call("weather", {"place": "Brest", "type": "now", "days": [1, 2.5]})),
        result('{"rain": true}'),
        answer("It is."),
    ],
    "arguments that are a text": [
        user("Is it raining in Brest?"),
        calling(call("weather", json.dumps({"place": "Brest « é »"}))),
        result("no"),
        answer("It is not."),
    ],
    "two turns with calls": [
        {"role": "system", "content": "Be brief."},
        user("Hi"),
        answer("Hello!"),
        user("Is it raining in Brest?"),
        calling(call("weather", {"place": "Brest"})),
        result("yes"),
        answer("It is."),
        user("And in Caen?"),
        calling(call("weather", {"place": "Caen"}, 2)),
        result("no", 2),
        answer("No."),
    ],
    "reasoning in every turn": [
        user("Is it raining in Brest?"),
        {**calling(call("weather", {"place": "B"})), "reasoning_content": "I have to look."},
        result("yes"),
        answer("It is.", reasoning_content="It said yes."),
        user("And in Caen?"),
        answer("I cannot say.", thinking="Nobody asked."),
        user("Why?"),
        answer("<think>\nHm.\n</think>\n\nBecause."),
    ],
}


def read(chat: Iterable[dict[str, Any]]) -> Conversation:
    """The conversation that a row with these messages holds."""
    row = {"messages": msgspec.Raw(msgspec.json.encode(list(chat)))}
    return tuple(chat_in(row, "messages", KNOWN_NAMES))


def as_transformers_takes(chat: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The row's messages; arguments that are a text of an object are that object."""
    messages: list[dict[str, Any]] = json.loads(json.dumps(list(chat)))
    for message in messages:
        for one in message.get("tool_calls", ()):
            if isinstance(one["function"]["arguments"], str):
                one["function"]["arguments"] = json.loads(one["function"]["arguments"])
    return messages


def for_transformers(
    tools: list[dict[str, Any]] | None,
) -> list[dict[Any, Any] | Callable[..., Any]] | None:
    """The tools under the type that transformers gives them."""
    return None if tools is None else [*tools]
