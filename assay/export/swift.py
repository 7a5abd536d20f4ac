"""ms-swift: ``messages`` with ``loss`` for its SFT, two conversations for DPO and reward models.

Read in ms-swift 4.6 (swift/dataset/preprocessor/core.py, swift/template/base.py). Its templates take a prompt
and an answer in turn. They join two messages of one role without a space, put an empty prompt before an
answer that comes first, and train on nothing where the last message is no answer. A ``rejected_response``
would replace all that follows the last user's message; ``rejected_messages`` is the whole conversation.
Fields of a message other than ``role``, ``content`` and ``loss`` are taken out: a call is a message of its
own (docs/source_en/Instruction/Agent-support.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from assay.core.schema import Message
from assay.export.chat import (
    calls_in_words,
    ends_on_another,
    late_system,
    no_prompt,
    out_of_turn,
    trained_turns,
    with_tools,
    without_prompt,
)
from assay.export.contract import Export, Json, Unit
from assay.export.kept import Item
from assay.export.pairs import Pair
from assay.export.turned import MASKS


def shape_refused(roles: str) -> str | None:
    """Why a template would die on a conversation of these roles, or alter it."""
    return (
        ends_on_another(roles)
        or no_prompt(roles)
        or late_system(roles)
        or out_of_turn(roles, tools_in_a_row=True)
    )


def _refuses(item: Item) -> str | None:
    return shape_refused(item.roles)


def _sft(item: Item) -> dict[str, Json]:
    messages: list[Json] = [
        {**row, "loss": is_trained}
        for message, is_trained in zip(item.messages, trained_turns(item), strict=True)
        for row in _in_words(message)
    ]
    return with_tools({"messages": messages}, item, "")


def _in_words(message: Message) -> Iterator[dict[str, Json]]:
    """Yield the message, and then each of its calls."""
    calls = message.fields.tool_calls
    if calls is None or message.content.strip():
        yield {"role": message.role, "content": message.content}
    for call in calls_in_words(calls) if calls is not None else ():
        yield {"role": "tool_call", "content": call}


def _conversation(messages: Sequence[Message]) -> list[Json]:
    return [row for message in messages for row in _in_words(message)]


def _refuses_pair(pair: Pair) -> str | None:
    return without_prompt(pair) or shape_refused(f"{pair.roles}a")


def _preference(pair: Pair) -> dict[str, Json]:
    row: dict[str, Json] = {
        "messages": _conversation([*pair.prompt, pair.chosen]),
        "rejected_messages": _conversation([*pair.prompt, pair.rejected]),
        "margin": pair.margin,
    }
    return with_tools(row, pair, "")


SWIFT_SFT: Export[Item] = Export(
    name="swift-sft",
    file="swift/sft.jsonl",
    description="messages with loss for ms-swift",
    refuses=_refuses,
    row=_sft,
    holds=frozenset({"tool_calls", "tools", *MASKS}),
)

SWIFT_PREFERENCE: Export[Pair] = Export(
    name="swift-preference",
    file="swift/preference.jsonl",
    description="messages, rejected_messages and margin for ms-swift's DPO and reward models",
    unit=Unit.PAIR,
    refuses=_refuses_pair,
    row=_preference,
    holds=frozenset({"tool_calls", "tools"}),
)
