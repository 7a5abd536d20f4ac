"""The settings that peft saves with an adapter."""

from __future__ import annotations

import json
from pathlib import Path

from assay.core.digests import digest_of_content
from assay.storage.regular import read_json_object

#: What peft writes beside an adapter's weights.
CONFIG = "adapter_config.json"

#: Settings that change no score: where the base lies is in no fingerprint, its files are.
_OF_NO_SCORE = frozenset({"base_model_name_or_path", "revision"})


def tokenizer_folder(model: Path, adapter: Path | None) -> Path:
    """The folder with the tokenizer and the chat template: the adapter's, where it has its own."""
    return adapter if adapter is not None and (adapter / "tokenizer.json").is_file() else model


def settings_digest(folder: Path) -> str:
    """A digest of what of the adapter's settings a score depends on."""
    settings = read_json_object(folder / CONFIG)
    kept = {name: value for name, value in settings.items() if name not in _OF_NO_SCORE}
    return digest_of_content(json.dumps(kept, sort_keys=True).encode())
