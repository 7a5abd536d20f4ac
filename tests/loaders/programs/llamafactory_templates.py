"""The names of LLaMA-Factory's templates that write calls in this format."""

import json
import sys

import without_torchaudio  # noqa: F401
from llamafactory.data.template import TEMPLATES
from llamafactory.data.tool_utils import TOOLS

written = type(TOOLS[json.loads(sys.argv[1])["tool_format"]])
found = [
    name
    for name, one in TEMPLATES.items()
    if type(getattr(one.format_function, "tool_utils", None)) is written
]
print()
print(json.dumps(found))
