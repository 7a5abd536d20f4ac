"""The settings that peft saves with an adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.core.digests import digest_of_content
from assay.core.errors import UserMistake
from assay.storage.regular import read_regular

#: What peft writes beside an adapter's weights.
CONFIG = "adapter_config.json"

#: Settings that change no score: where the base lies is in no fingerprint, its files are.
_OF_NO_SCORE = frozenset({"base_model_name_or_path", "revision"})


def settings_in(folder: Path) -> Mapping[str, Any]:
    """The adapter's settings; ``UserMistake`` where the file holds none."""
    path = folder / CONFIG
    try:
        settings = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserMistake(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(settings, dict):
        raise UserMistake(f"{path}: a JSON object is expected")
    return settings


def settings_digest(folder: Path) -> str:
    """A digest of what of the adapter's settings a score depends on."""
    settings = {name: value for name, value in settings_in(folder).items() if name not in _OF_NO_SCORE}
    return digest_of_content(json.dumps(settings, sort_keys=True).encode())
