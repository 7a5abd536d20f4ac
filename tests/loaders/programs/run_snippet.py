"""Runs a snippet with a tiny model in place of ``MODEL``, on the CPU."""

import functools
import json
import os
import sys
import tempfile

import trl
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

code = json.loads(sys.argv[1])["code"]
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
folder = tempfile.mkdtemp()
LlamaForCausalLM(config).save_pretrained(folder)
tokenizer.save_pretrained(folder)
steps: list[int] = []
train = trl.SFTTrainer.train
trl.SFTTrainer.train = lambda self: (train(self), steps.append(self.state.global_step))[0]
# TRL trains in bf16 unless it is asked not to, which it refuses to do without a GPU.
trl.SFTConfig = functools.partial(trl.SFTConfig, use_cpu=True, bf16=False)
exec(code, {"MODEL": folder})
print()
print(json.dumps({"steps": sum(steps)}))
