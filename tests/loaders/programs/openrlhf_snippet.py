"""What OpenRLHF reads by the words of a command, by its own argument parser and its own data set."""

import ast
import importlib.util
import itertools
import json
import os
import pathlib
import sys
from types import SimpleNamespace

from openrlhf.datasets.reward_dataset import RewardDataset
from openrlhf.datasets.utils import blending_datasets
from transformers import AutoTokenizer

module, *words = json.loads(sys.argv[1])["words"]
# The parser is made where the module is run as a program, and importing it wants DeepSpeed.
folder = pathlib.Path(importlib.util.find_spec("openrlhf").submodule_search_locations[0]).parent  # type: ignore
source = ast.parse(folder.joinpath(*module.split(".")).with_suffix(".py").read_text())
main = source.body[-1]
assert isinstance(main, ast.If)
imports = [
    one
    for one in source.body
    if isinstance(one, ast.Import | ast.ImportFrom) and "openrlhf" not in ast.unparse(one)
]
# All before the words are parsed.
parsing = [*imports, *itertools.takewhile(lambda one: "parse_args" not in ast.unparse(one), main.body)]
names: dict[str, object] = {}
exec(compile(ast.Module(parsing, []), module, "exec"), names)
flat = vars(names["parser"].parse_args(words))  # type: ignore
data = SimpleNamespace(**{name[5:]: value for name, value in flat.items() if name.startswith("data.")})
strategy = SimpleNamespace(args=SimpleNamespace(data=data), print=lambda *_: None, is_rank_0=lambda: False)
tokenizer = AutoTokenizer.from_pretrained(os.environ["ASSAY_TOKENIZER"])
rows = blending_datasets(
    data.dataset,
    data.dataset_probs,
    strategy,
    42,
    max_count=data.max_samples,
    dataset_split=data.dataset_split,
)
made = RewardDataset(rows, tokenizer, 1 << 20, strategy, input_template=data.input_template, num_processors=1)
found = [
    {"prompt": made.prompts[n], "chosen": made.chosens[n], "rejected": made.rejects[n]}
    for n in range(len(made))
]
print()
print(json.dumps(found))
