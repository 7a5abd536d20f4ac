"""``datasets.load_dataset`` with these arguments; prints the rows of every split."""

import json
import sys

from datasets import load_dataset

given = json.loads(sys.argv[1])
try:
    found = load_dataset(*given["arguments"], **given.get("options", {}))
    result = {"splits": {name: data.to_list() for name, data in found.items()}}
except Exception as error:  # noqa: BLE001 - whatever it dies of is the answer
    result = {"died": f"{type(error).__name__}: {error} {error.__cause__}"}
print()
print(json.dumps(result, default=str))
