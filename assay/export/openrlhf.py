"""OpenRLHF: prompt, chosen and rejected for its reward models and DPO.

Checked against OpenRLHF 0.11 (openrlhf/datasets/reward_dataset.py): ``--data.prompt_key prompt
--data.apply_chat_template``; a reward model's loss subtracts ``margin``. The chat template is given no tools.
"""

from __future__ import annotations

from assay.export.chat import SHOWN, without_prompt
from assay.export.contract import Export, Unit
from assay.export.pairs import Pair
from assay.export.trl import preference_with_margin

OPENRLHF_PREFERENCE: Export[Pair] = Export(
    name="openrlhf-preference",
    file="openrlhf/preference.jsonl",
    description="prompt, chosen, rejected and margin for OpenRLHF's RewardDataset",
    unit=Unit.PAIR,
    refuses=without_prompt,
    row=preference_with_margin,
    holds=frozenset(SHOWN),
)
