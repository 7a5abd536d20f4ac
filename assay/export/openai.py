"""OpenAI fine-tuning: ``messages``, each turn with its ``weight``.

As platform.openai.com/docs/guides/supervised-fine-tuning describes it: ``weight`` is 0 or 1, stands on an
assistant's message alone, and keeps a turn that is not to be learned out of the loss. The service's schema
allows these two integers alone (FineTuneChatCompletionRequestAssistantMessage, openai/openai-openapi). A
field that a message does not have is not there: the service takes no null for it.
"""

from __future__ import annotations

from msgspec import Raw

from assay.export.chat import ends_on_another, messages_of, trained_turns, weight_between
from assay.export.contract import Export, Json
from assay.export.kept import Item
from assay.export.turned import MASKS


def _refuses(item: Item) -> str | None:
    return ends_on_another(item.roles) or weight_between(item)


#: What the service knows of a message's fields; it has none for reasoning.
_FIELDS = ("tool_calls", "tool_call_id", "name")


def _row(item: Item) -> dict[str, Json]:
    messages: list[Json] = []
    rows = messages_of(item.messages, item.held)
    for row, is_trained in zip(rows, trained_turns(item), strict=True):
        message: dict[str, Json] = {"role": row["role"], "content": row["content"]}
        message |= {name: _without_null(row[name]) for name in _FIELDS if row.get(name) is not None}
        if row["role"] == "assistant":
            message["weight"] = int(is_trained)
        messages.append(message)
    found: dict[str, Json] = {"messages": messages}
    if item.tools is not None:
        found["tools"] = Raw(item.tools.encode())
    return found


def _without_null(value: Json) -> Json:
    """The value; calls without what they do not have, and with the type that the service asks for."""
    if not isinstance(value, list):
        return value
    return [
        {
            "type": "function",
            **{name: part for name, part in call.items() if part is not None and name != "extra"},
        }
        for call in value
        if isinstance(call, dict)
    ]


OPENAI: Export[Item] = Export(
    name="openai",
    file="openai/sft.jsonl",
    description="messages with weight for OpenAI's fine-tuning",
    version=2,
    refuses=_refuses,
    row=_row,
    holds=frozenset({*_FIELDS, *MASKS, "tools"}),
    # It takes no null, so tools are not a column of one type.
    tools_as_a_list=True,
)
