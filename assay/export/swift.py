"""ms-swift: ``messages`` with ``loss`` for its SFT, two conversations for DPO and reward models.

Read in ms-swift 4.6 (swift/dataset/preprocessor/core.py, swift/template/base.py). Its templates take a prompt
and an answer in turn. They join two messages of one role without a space, put an empty prompt before an
answer that comes first, and train on nothing where the last message is no answer. A ``rejected_response``
would replace all that follows the last user's message; ``rejected_messages`` is the whole conversation.
"""

from __future__ import annotations

from assay.export.chat import (
    ends_on_another,
    late_system,
    messages_of,
    no_prompt,
    out_of_turn,
    trained_turns,
    without_prompt,
)
from assay.export.contract import Export, Json, Unit
from assay.export.kept import Item
from assay.export.pairs import Pair


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
    rows = zip(messages_of(item.messages), trained_turns(item), strict=True)
    return {"messages": [{**row, "loss": is_trained} for row, is_trained in rows]}


def _refuses_pair(pair: Pair) -> str | None:
    return without_prompt(pair) or shape_refused(f"{pair.roles}a")


def _preference(pair: Pair) -> dict[str, Json]:
    return {
        "messages": messages_of([*pair.prompt, pair.chosen]),
        "rejected_messages": messages_of([*pair.prompt, pair.rejected]),
        "margin": pair.margin,
    }


SWIFT_SFT: Export[Item] = Export(
    name="swift-sft",
    file="swift/sft.jsonl",
    description="messages with loss for ms-swift",
    refuses=_refuses,
    row=_sft,
    holds_fields=False,
)

SWIFT_PREFERENCE: Export[Pair] = Export(
    name="swift-preference",
    file="swift/preference.jsonl",
    description="messages, rejected_messages and margin for ms-swift's DPO and reward models",
    unit=Unit.PAIR,
    refuses=_refuses_pair,
    row=_preference,
    holds_fields=False,
)
