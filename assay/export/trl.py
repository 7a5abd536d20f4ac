"""TRL: ``messages`` for SFT, two answers for DPO and reward models, one answer with a verdict for KTO.

Checked against TRL 1.16 (trl/trainer/*_trainer.py; docs/source/dataset_formats.md). The first row decides for
all whether a dataset is conversational, and an empty ``prompt`` counts as a list of strings.
"""

from __future__ import annotations

from assay.export.chat import (
    TO_TEMPLATES,
    answer_of,
    ends_on_another,
    messages_of,
    no_prompt,
    no_side,
    prompt_of,
    with_tools,
    without_prompt,
)
from assay.export.contract import Export, Json, Unit
from assay.export.kept import Item
from assay.export.pairs import Pair

_NO_TOOLS = "null"


def _sft(item: Item) -> dict[str, Json]:
    return with_tools({"messages": messages_of(item.messages, item.held)}, item, _NO_TOOLS)


def refuses_verdict(item: Item) -> str | None:
    """Why the record is no prompt with an answer and a verdict."""
    return ends_on_another(item.roles) or no_prompt(item.roles) or no_side(item)


def _kto(item: Item) -> dict[str, Json]:
    row: dict[str, Json] = {
        "prompt": messages_of(item.messages[:-1], item.held),
        "completion": messages_of(item.messages[-1:], item.held),
        "label": item.verdict,
    }
    return with_tools(row, item, _NO_TOOLS)


def preference(pair: Pair) -> dict[str, Json]:
    """``prompt``, ``chosen`` and ``rejected``, each a list of messages."""
    return {
        "prompt": prompt_of(pair),
        "chosen": [answer_of(pair.chosen, pair.held)],
        "rejected": [answer_of(pair.rejected, pair.held)],
    }


def preference_with_margin(pair: Pair) -> dict[str, Json]:
    """The same with ``margin``, which a reward model's loss subtracts."""
    return {**preference(pair), "margin": pair.margin}


def _preference(pair: Pair) -> dict[str, Json]:
    return with_tools(preference(pair), pair, _NO_TOOLS)


def _reward(pair: Pair) -> dict[str, Json]:
    return with_tools(preference_with_margin(pair), pair, _NO_TOOLS)


TRL_SFT: Export[Item] = Export(
    name="trl-sft",
    file="trl/sft.jsonl",
    description="messages for TRL's SFTTrainer",
    row=_sft,
    holds=TO_TEMPLATES,
)

TRL_KTO: Export[Item] = Export(
    name="trl-kto",
    file="trl/kto.jsonl",
    description="prompt, completion and label (true for a chosen or desirable one) for TRL's KTOTrainer",
    refuses=refuses_verdict,
    row=_kto,
    holds=TO_TEMPLATES,
    holds_sides=True,
)

TRL_PREFERENCE: Export[Pair] = Export(
    name="trl-preference",
    file="trl/preference.jsonl",
    description="prompt, chosen and rejected for TRL's DPOTrainer and its like",
    unit=Unit.PAIR,
    refuses=without_prompt,
    row=_preference,
    holds=TO_TEMPLATES,
)

TRL_REWARD: Export[Pair] = Export(
    name="trl-reward",
    file="trl/reward.jsonl",
    description="prompt, chosen, rejected and margin for TRL's RewardTrainer",
    unit=Unit.PAIR,
    refuses=without_prompt,
    row=_reward,
    holds=TO_TEMPLATES,
)
