"""Conversations with tools, calls, results and reasoning, and how a chat template shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

TIDE = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "High water",
        "parameters": {"type": "object", "properties": {"port": {"type": "string"}}},
    },
}
MOON = {
    "type": "function",
    "function": {
        "name": "moon",
        "description": "Its age",
        "parameters": {
            "type": "object",
            "properties": {"day": {"type": "number"}, "utc": {"type": "boolean"}},
        },
    },
}


def call(name: str, arguments: object, number: int = 1) -> dict[str, Any]:
    """A call as OpenAI writes it."""
    function = {"name": name, "arguments": arguments}
    return {"id": f"c{number}", "type": "function", "function": function}


def asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


CALLS = {"role": "assistant", "content": None, "tool_calls": [call("tide", {"port": "Zoë\u2028"})]}
RESULT = {"role": "tool", "content": "06:10", "tool_call_id": "c1"}
TWO = {
    "role": "assistant",
    "content": None,
    "tool_calls": [call("tide", {"port": "Brest"}), call("moon", '{"day": 1.5, "utc": true}', 2)],
}
TWO_RESULTS = [RESULT, {"role": "tool", "content": "new", "tool_call_id": "c2"}]
BESIDE = said("Let me see.", tool_calls=[call("moon", {"day": 3})])
CONTEXT = [asked("High water?"), CALLS, RESULT]

TOOL_CHATS: list[dict[str, Any]] = [
    {"messages": [asked("Hello"), said("Hello.")]},
    {"messages": [asked("2 + 2?"), said("4", reasoning_content="Add them.")]},
    {"messages": [*CONTEXT, said("At ten past six.")], "tools": [TIDE, MOON]},
    {"messages": [asked("Both?"), TWO, *TWO_RESULTS, said("06:10, and new.")], "tools": [MOON]},
    {"messages": [asked("The moon?"), BESIDE, {**RESULT, "content": "full"}, said("Full.")], "tools": [MOON]},
    # Calls of tools that nobody described.
    {"messages": [asked("Tide?"), CALLS, RESULT, said("Six.")]},
    {"messages": [asked("Masked?"), said("No.", weight=0), asked("And?"), said("Yes.", weight=1)]},
    # Two answers to one prompt, with tools and without any.
    {"prompt": CONTEXT, "chosen": [said("Ten past six.")], "rejected": [said("Never.")], "tools": [TIDE]},
    {"prompt": CONTEXT, "chosen": [said("Just after six.")], "rejected": [said("Who knows.")]},
    {"prompt": [asked("Hi")], "chosen": [said("Hi!")], "rejected": [said("What?")]},
]

#: Shows each message by itself, and everything that it holds. Arguments are an object, or its text.
TEMPLATE = (
    "{%- if tools %}{{ '<|im_start|>tools\n' }}"
    "{%- for tool in tools %}{{ tool | tojson + '\n' }}{%- endfor %}"
    "{{ '<|im_end|>\n' }}{%- endif %}{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.reasoning_content %}{{ '(' + m.reasoning_content + ')' }}{%- endif %}"
    "{%- if m.content %}{{ m.content }}{%- endif %}"
    "{%- if m.tool_calls %}{%- for c in m.tool_calls %}{{ '[' + c.function.name + ' ' }}"
    "{%- if c.function.arguments is string %}{{ c.function.arguments }}"
    "{%- else %}{{ c.function.arguments | tojson }}{%- endif %}{{ ']' }}{%- endfor %}{%- endif %}"
    "{%- if m.tool_call_id %}{{ '#' + m.tool_call_id }}{%- endif %}{{ '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)


def shown(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None) -> str:
    """What the template shows of a conversation as the input had it, by hand."""
    text = ""
    if tools:
        text = "<|im_start|>tools\n" + "".join(f"{as_json(tool)}\n" for tool in tools) + "<|im_end|>\n"
    for one in messages:
        text += f"<|im_start|>{one['role']}\n{body(one)}<|im_end|>\n"
    return text


def body(message: Mapping[str, Any]) -> str:
    """What it shows of a message behind its role."""
    reasoning = f"({message['reasoning_content']})" if message.get("reasoning_content") else ""
    calls = "".join(
        f"[{one['function']['name']} {as_json(one['function']['arguments'])}]"
        for one in message.get("tool_calls") or ()
    )
    number = f"#{message['tool_call_id']}" if message.get("tool_call_id") else ""
    return f"{reasoning}{message['content'] or ''}{calls}{number}"


def as_json(value: Any) -> str:
    """As transformers' ``tojson``; a text is JSON already."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def conversations(*, preferences: bool = True) -> list[tuple[list[dict[str, Any]], list[Any] | None]]:
    """The messages and tools of the records, in order: a preference is one record with each answer."""
    found: list[tuple[list[dict[str, Any]], list[Any] | None]] = []
    for row in TOOL_CHATS:
        if "messages" in row:
            found.append((row["messages"], row.get("tools")))
        elif preferences:
            found += [(row["prompt"] + row[side], row.get("tools")) for side in ("chosen", "rejected")]
    return found
