"""What verl's data sets make of a file's rows."""

import json
import os
import sys
import tempfile

from omegaconf import OmegaConf
from transformers import AutoTokenizer

given = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(os.environ["ASSAY_TOKENIZER"])
if given.get("template"):
    tokenizer.chat_template = given["template"]
try:
    if given["kind"] == "sft":
        from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

        config = OmegaConf.create({"max_length": 1 << 14, "truncation": "error", "pad_mode": "no_padding"})
        data = MultiTurnSFTDataset([given["file"]], tokenizer, config)
        found = []
        for number in range(len(data)):
            row = data[number]
            learned = [token for token, kept in zip(row["input_ids"], row["loss_mask"], strict=True) if kept]
            found.append({"text": tokenizer.decode(row["input_ids"]), "learned": tokenizer.decode(learned)})
    else:
        from verl.utils.dataset.rm_dataset import RMDataset

        data = RMDataset([given["file"]], tokenizer, max_length=1 << 14, cache_dir=tempfile.mkdtemp())
        found = []
        for number in range(len(data)):
            row = data[number]
            pairs = zip(row["input_ids"], row["attention_mask"], strict=True)
            found.append([tokenizer.decode(ids[mask.bool()]) for ids, mask in pairs])
    result = {"rows": found}
except Exception as error:  # noqa: BLE001 - whatever it dies of is the answer
    result = {"died": f"{type(error).__name__}: {error}"}
print()
print(json.dumps(result))
