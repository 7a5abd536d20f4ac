"""What Axolotl's own strategies make of a file's rows."""

import json
import os
import pathlib
import sys

import yaml
from axolotl.utils.dict import DictDefault
from datasets import load_dataset
from transformers import AutoTokenizer

given = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(os.environ["ASSAY_TOKENIZER"])
if given.get("template"):
    tokenizer.chat_template = given["template"]
if "yaml" in given:
    config = yaml.safe_load(pathlib.Path(given["yaml"]).read_text())
    path = os.path.join(given["folder"], config["datasets"][0]["path"])
else:
    kinds = {"sft": "chat_template", "dpo": "chat_template.default", "kto": "chatml.argilla_chat"}
    shown = ("role", "content", "tool_calls")
    data_set = {"type": kinds[given["kind"]], "message_property_mappings": {name: name for name in shown}}
    config = {"chat_template": "tokenizer_default", "datasets": [data_set]}
    path = given["file"]
cfg = DictDefault(config)
data = load_dataset("json", data_files=path, split="train")
kind = cfg["datasets"][0]["type"]
found = []
if given["kind"] == "sft":
    from axolotl.prompt_strategies.chat_template import load

    cfg["train_on_inputs"] = False
    cfg["sequence_len"] = 1 << 20
    strategy = load(tokenizer, cfg, ds_cfg=cfg["datasets"][0])
    for row in data:
        made = strategy.tokenize_prompt(row)
        trained = [
            token for token, label in zip(made["input_ids"], made["labels"], strict=True) if label != -100
        ]
        found.append({"text": tokenizer.decode(made["input_ids"]), "trained": tokenizer.decode(trained)})
elif given["kind"] == "dpo":
    from axolotl.prompt_strategies.dpo import load

    transform, _ = load(kind, cfg, dataset_idx=0)
    for row in data:
        made = transform(row, tokenizer=tokenizer)
        found.append({name: made[name] for name in ("prompt", "chosen", "rejected")})
else:
    from axolotl.prompt_strategies.kto import load

    transform = load(kind, cfg, dataset_idx=0)
    transform = transform[0] if isinstance(transform, tuple) else transform
    for row in data:
        made = transform(row)
        found.append({name: made[name] for name in ("prompt", "completion", "label")})
print()
print(json.dumps(found))
