"""How many rows ``load_dataset("json")`` gives, and the different values of ``extra`` in order."""

import json
import sys

from datasets import load_dataset

given = json.loads(sys.argv[1])
try:
    data = load_dataset("json", data_files=given["file"], split="train")
    result = {"rows": len(data), "extras": list(dict.fromkeys(data["extra"]))}
except Exception as error:  # noqa: BLE001 - whatever it dies of is the answer
    result = {"died": f"{type(error).__name__}: {error} {error.__cause__}"}
print()
print(json.dumps(result))
