"""One training step of a trainer of TRL on a file; prints the texts that it trains on."""

import json
import os
import sys
import tempfile

import torch
from datasets import load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

given = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(os.environ["ASSAY_TOKENIZER"])
if given.get("template"):
    tokenizer.chat_template = given["template"]
config = LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=16384,
    pad_token_id=tokenizer.pad_token_id,
    eos_token_id=tokenizer.eos_token_id,
    num_labels=1,
)
torch.manual_seed(0)
kind = given["kind"]
model = (LlamaForSequenceClassification if kind == "reward" else LlamaForCausalLM)(config)
folder = tempfile.mkdtemp()
model.save_pretrained(folder)
tokenizer.save_pretrained(folder)
data = load_dataset("json", data_files=given["file"], split="train")
rows_in = len(data)
common = {
    "output_dir": tempfile.mkdtemp(),
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
}
try:
    if kind == "sft":
        from trl import SFTConfig, SFTTrainer

        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=data,
            args=SFTConfig(max_length=None, **common),
        )
    elif kind == "dpo":
        from trl import DPOConfig, DPOTrainer

        trainer = DPOTrainer(
            model=folder,
            processing_class=tokenizer,
            train_dataset=data,
            args=DPOConfig(max_length=None, **common),
        )
    elif kind == "kto":
        from trl import KTOConfig, KTOTrainer

        trainer = KTOTrainer(
            model=folder,
            processing_class=tokenizer,
            train_dataset=data,
            args=KTOConfig(max_length=None, **common),
        )
    else:
        from trl import RewardConfig, RewardTrainer

        trainer = RewardTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=data,
            args=RewardConfig(max_length=None, **common),
        )
    seen = trainer.train_dataset
    names = [name for name in seen.column_names if name.endswith("ids")]
    texts = [{name: tokenizer.decode(row[name]) for name in names} for row in seen.select_columns(names)]
    others = {name: seen[name][:] for name in ("margin", "label") if name in seen.column_names}
    trainer.train()
    result = {"rows_in": rows_in, "texts": texts, "steps": trainer.state.global_step, **others}
except Exception as error:  # noqa: BLE001 - whatever the trainer dies of is the answer
    result = {"rows_in": rows_in, "died": f"{type(error).__name__}: {error}"}
print()
print(json.dumps(result))
