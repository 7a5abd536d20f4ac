"""The tokens of each row that verl reads by the words of a command: its own settings, its own data set."""

import json
import os
import sys

import verl
from hydra import compose, initialize_config_dir
from transformers import AutoTokenizer
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

settings = os.path.join(os.path.dirname(verl.__file__), "trainer/config")
# verl/trainer/sft_trainer.py, main: hydra.main(config_path="config", config_name="sft_trainer_engine").
with initialize_config_dir(settings, version_base=None):
    config = compose("sft_trainer_engine", overrides=json.loads(sys.argv[1])["overrides"])
tokenizer = AutoTokenizer.from_pretrained(os.environ["ASSAY_TOKENIZER"])
data = MultiTurnSFTDataset(config.data.train_files, tokenizer, config.data)
try:
    result = {"tokens": [len(data[number]["input_ids"]) for number in range(len(data))]}
except Exception as error:  # noqa: BLE001 - whatever it dies of is the answer
    result = {"died": f"{type(error).__name__}: {error}"}
print()
print(json.dumps(result))
