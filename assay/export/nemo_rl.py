"""NeMo-RL: ``messages`` for its ``openai_format``, ranked completions for its PreferenceDataset.

Read in nemo_rl/data/datasets (response_datasets/oai_format_dataset.py, preference_datasets/preference.py) and
nemo_rl/data/processors.py, August 2026. A file of which one row does not end on the assistant's message is
not loaded at all (an assertion); two completions of equal rank are refused; rank 0 is the best. ``tools`` are
a list, which goes to the chat template as it is where ``use_preserving_dataset`` is true. Preferences have
none.
"""

from __future__ import annotations

from msgspec import Raw

from assay.export.chat import (
    SHOWN,
    TO_TEMPLATES,
    answer_of,
    ends_on_another,
    messages_of,
    prompt_of,
    without_prompt,
)
from assay.export.contract import Export, Json, Unit
from assay.export.kept import Item
from assay.export.pairs import Pair


def _refuses(item: Item) -> str | None:
    return ends_on_another(item.roles)


def _sft(item: Item) -> dict[str, Json]:
    row: dict[str, Json] = {"messages": messages_of(item.messages, item.held)}
    if item.held.tools:
        row["tools"] = None if item.tools is None else Raw(item.tools.encode())
    return row


def _preference(pair: Pair) -> dict[str, Json]:
    return {
        "context": prompt_of(pair),
        "completions": [
            {"rank": rank, "completion": [answer_of(message, pair.held)]}
            for rank, message in enumerate((pair.chosen, pair.rejected))
        ],
    }


NEMO_RL_SFT: Export[Item] = Export(
    name="nemo-rl-sft",
    file="nemo-rl/sft.jsonl",
    description="messages for NeMo-RL's openai_format",
    refuses=_refuses,
    row=_sft,
    holds=TO_TEMPLATES,
    tools_as_a_list=True,
)

NEMO_RL_PREFERENCE: Export[Pair] = Export(
    name="nemo-rl-preference",
    file="nemo-rl/preference.jsonl",
    description="context and two ranked completions for NeMo-RL's PreferenceDataset",
    unit=Unit.PAIR,
    refuses=without_prompt,
    row=_preference,
    holds=frozenset(SHOWN),
)
