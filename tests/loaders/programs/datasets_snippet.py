"""Runs a snippet; prints the rows of its ``data``."""

import json
import sys

found: dict[str, object] = {}
exec(json.loads(sys.argv[1])["code"], found)
print()
print(json.dumps(list(found["data"])))  # type: ignore[call-overload]
