"""verl: ``messages`` in Parquet for its SFT, and three texts for its reward models.

Checked against verl 0.9.1 (verl/utils/dataset/multiturn_sft_dataset.py, rm_dataset.py). Both read Parquet
alone; the latter tokenises ``prompt`` as a bare text, so a prompt of several messages has no place in it.
SFT hands ``tools`` to the chat template as the table has them, and a table has one type for all: each tool
would have the parameters of every other one, null. So records with tools are left out.
"""

from __future__ import annotations

import polars as pl

from assay.export.chat import SHOWN, message_type, messages_of, without_prompt
from assay.export.contract import Columns, Export, Json, Unit
from assay.export.kept import Held, Item
from assay.export.pairs import Pair


def _sft(item: Item) -> dict[str, Json]:
    return {"messages": messages_of(item.messages, item.held)}


def _columns(held: Held) -> Columns:
    return {"messages": pl.List(message_type(held))}


def _refuses_pair(pair: Pair) -> str | None:
    if pair.roles == "u":
        return None
    if not pair.roles:
        return without_prompt(pair)
    return f"prompt_not_a_text: the prompt is {len(pair.roles)} messages, or not a user's"


def _preference(pair: Pair) -> dict[str, Json]:
    return {
        "prompt": pair.prompt[0].content,
        "chosen": pair.chosen.content,
        "rejected": pair.rejected.content,
    }


VERL_SFT: Export[Item] = Export(
    name="verl-sft",
    file="verl/sft.parquet",
    description="messages for verl's SFT, a table",
    row=_sft,
    columns=_columns,
    holds=frozenset(SHOWN),
)

VERL_PREFERENCE: Export[Pair] = Export(
    name="verl-preference",
    file="verl/preference.parquet",
    description="prompt, chosen and rejected as texts for verl's RMDataset, a table",
    unit=Unit.PAIR,
    refuses=_refuses_pair,
    row=_preference,
    columns={"prompt": pl.String, "chosen": pl.String, "rejected": pl.String},
)
