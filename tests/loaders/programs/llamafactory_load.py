"""What LLaMA-Factory's own loader makes of a data set that dataset_info.json names."""

import json
import sys

import without_torchaudio  # noqa: F401
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import DataArguments, ModelArguments
from transformers import Seq2SeqTrainingArguments

given = json.loads(sys.argv[1])
data_args = DataArguments(dataset=given["name"], dataset_dir=given["folder"], preprocessing_num_workers=1)
(attributes,) = get_dataset_list(data_args.dataset, data_args.dataset_dir)
model_args = ModelArguments(model_name_or_path="nobody")
training_args = Seq2SeqTrainingArguments(output_dir="out")
data = _load_single_dataset(attributes, model_args, data_args, training_args)
print()
print(
    json.dumps([{name: row[name] for name in ("_prompt", "_response", "_system", "_tools")} for row in data])
)
