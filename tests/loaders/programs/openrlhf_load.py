"""What OpenRLHF's RewardDataset makes of a file's rows."""

import json
import os
import sys
from types import SimpleNamespace

from datasets import load_dataset
from openrlhf.datasets.reward_dataset import RewardDataset
from transformers import AutoTokenizer

given = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(os.environ["ASSAY_TOKENIZER"])
if given.get("template"):
    tokenizer.chat_template = given["template"]
data = load_dataset("json", data_files=given["file"], split="train")
options = SimpleNamespace(
    prompt_key="prompt", chosen_key="chosen", rejected_key="rejected", apply_chat_template=True
)
strategy = SimpleNamespace(args=SimpleNamespace(data=options))
try:
    made = RewardDataset(data, tokenizer, 1 << 20, strategy, num_processors=1)
    found = [
        {
            "prompt": made.prompts[n],
            "chosen": made.chosens[n],
            "rejected": made.rejects[n],
            "margin": made.extras[n],
        }
        for n in range(len(made))
    ]
    result = {"rows": found}
except Exception as error:  # noqa: BLE001 - whatever it dies of is the answer
    result = {"died": f"{type(error).__name__}: {error}"}
print()
print(json.dumps(result))
