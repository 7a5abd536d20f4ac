"""A training step of LLaMA-Factory, by its own settings, on a tiny model and on the CPU."""

import json
import os
import sys
import tempfile

import without_torchaudio  # noqa: F401
import yaml
from llamafactory.train.tuner import run_exp
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

tokenizer = AutoTokenizer.from_pretrained(os.environ["ASSAY_TOKENIZER"])
config = LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    pad_token_id=tokenizer.pad_token_id,
    eos_token_id=tokenizer.eos_token_id,
)
model = tempfile.mkdtemp()
LlamaForCausalLM(config).save_pretrained(model)
tokenizer.save_pretrained(model)
settings = {
    **yaml.safe_load(json.loads(sys.argv[1])["yaml"]),
    "model_name_or_path": model,
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "full",
    "template": "qwen",
    "cutoff_len": 4096,
    "output_dir": tempfile.mkdtemp(),
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
}
run_exp(settings)
with open(os.path.join(settings["output_dir"], "train_results.json")) as file:
    result = json.load(file)
with open(os.path.join(settings["output_dir"], "trainer_state.json")) as file:
    result["steps"] = json.load(file)["global_step"]
print()
print(json.dumps(result))
