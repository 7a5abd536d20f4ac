"""What LLaMA-Factory's templates make of the contents of calls, a format of calls at a time."""

import json
import sys

import without_torchaudio  # noqa: F401
from llamafactory.data.formatter import FunctionFormatter
from llamafactory.data.tool_utils import TOOLS

found = []
for content in json.loads(sys.argv[1])["contents"]:
    made = {}
    for name in TOOLS:
        try:
            made[name] = "".join(
                FunctionFormatter(slots=["{{content}}"], tool_format=name).apply(content=content)
            )
        except Exception as error:  # noqa: BLE001 - whatever it dies of is the answer
            made[name] = f"died: {type(error).__name__}"
    found.append(made)
print()
print(json.dumps(found))
