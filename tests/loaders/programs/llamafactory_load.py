"""What LLaMA-Factory's own loader makes of a data set that dataset_info.json names."""

import json
import sys
import types

# The wheel of torchaudio wants CUDA's libraries; nothing here plays a sound.
sys.modules["torchaudio"] = types.ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = types.SimpleNamespace(name="torchaudio", loader=None)  # type: ignore[assignment]

from llamafactory.data.loader import _load_single_dataset  # noqa: E402
from llamafactory.data.parser import get_dataset_list  # noqa: E402
from llamafactory.hparams import DataArguments, ModelArguments  # noqa: E402
from transformers import Seq2SeqTrainingArguments  # noqa: E402

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
