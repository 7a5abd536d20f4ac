"""OpenAI fine-tuning: ``messages``, each turn with its ``weight``.

As platform.openai.com/docs/guides/supervised-fine-tuning describes it: ``weight`` is 0 or 1, stands on an
assistant's message alone, and keeps a turn that is not to be learned out of the loss.
"""

from __future__ import annotations

from assay.export.chat import ends_on_another, messages_of, trained_turns
from assay.export.contract import Export, Json
from assay.export.kept import Item


def _refuses(item: Item) -> str | None:
    return ends_on_another(item.roles)


def _row(item: Item) -> dict[str, Json]:
    trained = trained_turns(item)
    return {
        "messages": [
            {**row, "weight": int(is_trained)} if message.role == "assistant" else row
            for message, row, is_trained in zip(
                item.messages, messages_of(item.messages), trained, strict=True
            )
        ]
    }


OPENAI: Export[Item] = Export(
    name="openai",
    file="openai/sft.jsonl",
    description="messages with weight for OpenAI's fine-tuning",
    refuses=_refuses,
    row=_row,
    holds_fields=False,
)
