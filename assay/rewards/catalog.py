"""What is known of a reward model before it is loaded: found by name, by folder, or by its Hub id.

Nothing here imports torch: a run that has every score already opens no model.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import UserMistake
from assay.rewards.protocol import ModelSpec
from assay.schema import REWARD, STEERLM_ATTRIBUTES

#: Counted up whenever the engine would give the same conversation another score.
ENGINE_VERSION = 1

OVER_LENGTH = ("quarantine", "left-truncate")

#: Files that a score depends on. Weights are safetensors alone: a pickle could run anything.
_WEIGHTS = "*.safetensors"
_SETTINGS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
_DOWNLOADED = (*_SETTINGS, _WEIGHTS, "*.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalog knows of one published model."""

    source: str
    """A Hub id, or a folder that ships with Assay."""
    family: str | None = None
    """Where the architecture does not tell."""
    attributes: tuple[str, ...] | None = None
    max_tokens: int | None = None
    notes: tuple[str, ...] = ()


_STARTER = Path(__file__).parent.parent / "starter"

CATALOG: dict[str, Entry] = {
    "starter": Entry(
        source=str(_STARTER),
        max_tokens=8192,
        notes=(
            "The starter model is there to try the pipeline, not to judge data: "
            "see assay/starter/README.md for what it can and cannot do.",
        ),
    ),
    # Facts from the models' cards on the Hub.
    "nvidia/Qwen-2.5-Nemotron-32B-Reward": Entry(
        source="nvidia/Qwen-2.5-Nemotron-32B-Reward", attributes=(REWARD,), max_tokens=131_072
    ),
    "nvidia/Llama-3.3-Nemotron-70B-Reward-Multilingual": Entry(
        source="nvidia/Llama-3.3-Nemotron-70B-Reward-Multilingual",
        family="first-token-logit",
        attributes=(REWARD,),
        max_tokens=131_072,
    ),
    "nvidia/Llama-3.3-Nemotron-70B-Reward": Entry(
        source="nvidia/Llama-3.3-Nemotron-70B-Reward", family="first-token-logit", attributes=(REWARD,)
    ),
    "nvidia/Llama-3.1-Nemotron-70B-Reward-HF": Entry(
        source="nvidia/Llama-3.1-Nemotron-70B-Reward-HF", family="first-token-logit", attributes=(REWARD,)
    ),
}


def find_model(
    name: str, *, over_length: str = "quarantine", dtype: str = "float32", digest_cache: Path | None = None
) -> ModelSpec:
    """The model of that catalog name, folder, or Hub id; ``UserMistake`` where none can be used.

    ``digest_cache`` is a JSON file in which digests of large weights are kept by size and time.
    """
    if over_length not in OVER_LENGTH:
        raise UserMistake(f"--over-length {over_length}: choose one of {', '.join(OVER_LENGTH)}")
    entry = CATALOG.get(name) or Entry(source=name)
    folder = _folder_of(name, entry)
    config = _read_json(folder / "config.json")
    weights = sorted(folder.glob(_WEIGHTS))
    if not weights:
        raise UserMistake(
            f"model {name}: no *.safetensors in {folder}; weights in other formats (pickles) are never "
            "loaded: convert them with `save_pretrained(..., safe_serialization=True)`"
        )
    if not (folder / "tokenizer.json").is_file():
        raise UserMistake(f"model {name}: no tokenizer.json in {folder}")
    if not _has_chat_template(folder):
        raise UserMistake(
            f"model {name}: no chat template, so a conversation cannot be rendered for it; "
            f"put the one it was trained with into {folder / 'chat_template.jinja'}"
        )
    family = entry.family or _family(name, config)
    attributes = entry.attributes or _attributes(name, family, config)
    max_tokens = entry.max_tokens or _max_tokens(name, folder, config)
    notes = entry.notes
    if name not in CATALOG:
        notes = (
            *notes,
            f"{name} is not in the catalog; assumed: {family}, {', '.join(attributes)}, "
            f"at most {max_tokens} tokens.",
        )
    parts = _file_digests(folder, weights, digest_cache)
    settings = [family, ",".join(attributes), dtype, str(max_tokens), over_length, str(ENGINE_VERSION)]
    fingerprint = hashlib.blake2b("\n".join([*parts, *settings]).encode(), digest_size=16).hexdigest()
    return ModelSpec(
        name=name,
        folder=str(folder),
        family=family,
        attributes=attributes,
        max_tokens=max_tokens,
        over_length=over_length,
        dtype=dtype,
        opener="assay.rewards.local:open_model",
        fingerprint=fingerprint,
        notes=notes,
    )


def _folder_of(name: str, entry: Entry) -> Path:
    folder = Path(entry.source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserMistake(f"model {name}: {folder} has no config.json, so it is not a model's folder")
        return folder.resolve()
    looks_like_hub_id = entry.source.count("/") == 1 and not entry.source.startswith((".", "/", "~"))
    if looks_like_hub_id:
        return _from_hub(name, entry.source)
    raise UserMistake(_unknown(name))


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, CATALOG, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"unknown model {name!r}.{hint} Name one of the catalog ({', '.join(CATALOG)}), "
        "a folder with a model in it, or a Hugging Face id (owner/name)"
    )


def _from_hub(name: str, hub_id: str) -> Path:
    """The local copy of a model on the Hub, fetched if it is not there and the Hub can be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_DOWNLOADED)))
    except LocalEntryNotFoundError as error:
        raise UserMistake(
            f"{_unknown(name)}. It was looked for on the Hub as {hub_id}, which is not in the local cache, "
            "and the Hub cannot be reached from here"
        ) from error
    except HfHubHTTPError as error:
        raise UserMistake(f"model {name}: the Hub says no to {hub_id}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserMistake(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserMistake(f"{path}: a JSON object is expected")
    return content


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    tokenizer_config = folder / "tokenizer_config.json"
    return tokenizer_config.is_file() and bool(_read_json(tokenizer_config).get("chat_template"))


def _family(name: str, config: dict[str, Any]) -> str:
    architectures = config.get("architectures") or ["none"]
    if any(architecture.endswith("ForSequenceClassification") for architecture in architectures):
        return "sequence-classification"
    if any(architecture.endswith("ForCausalLM") for architecture in architectures):
        return "first-token-logit"
    raise UserMistake(
        f"model {name}: its architecture is {', '.join(architectures)}; a reward model here is a "
        "*ForSequenceClassification, or a *ForCausalLM read at vocabulary id 0"
    )


def _attributes(name: str, family: str, config: dict[str, Any]) -> tuple[str, ...]:
    if family == "first-token-logit":
        return (REWARD,)
    names = config.get("id2label") or {}
    count = len(names) or int(config.get("num_labels", 2))
    if count == 1:
        return (REWARD,)
    attributes = tuple(str(names.get(str(index), "")) for index in range(count))
    if set(attributes) - {*STEERLM_ATTRIBUTES, REWARD} or len(set(attributes)) != count:
        raise UserMistake(
            f"model {name}: it has {count} outputs and its config.json names them {', '.join(attributes)}; "
            f"id2label must give each one of {', '.join(STEERLM_ATTRIBUTES)}"
        )
    return attributes


def _max_tokens(name: str, folder: Path, config: dict[str, Any]) -> int:
    limits = [config.get(key) for key in ("max_position_embeddings", "n_positions")]
    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.is_file():
        limits.append(_read_json(tokenizer_config).get("model_max_length"))
    # transformers writes 10**30 for "no limit is known".
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 10**9]
    if not known:
        raise UserMistake(f"model {name}: neither config.json nor tokenizer_config.json states its limit")
    return min(known)


def _file_digests(folder: Path, weights: Iterable[Path], cache: Path | None) -> list[str]:
    files = [*weights, *(path for pattern in _SETTINGS for path in sorted(folder.glob(pattern)))]
    known = _read_cache(cache)
    digests = []
    fresh = dict(known)
    for path in files:
        stat = path.stat()
        stamp = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        digest = known.get(stamp) if path.suffix == ".safetensors" else None
        if digest is None:
            digest = _digest(path)
            if path.suffix == ".safetensors":
                fresh[stamp] = digest
        digests.append(f"{path.relative_to(folder)} {digest}")
    if cache is not None and fresh != known:
        _write_cache(cache, fresh)
    return digests


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _read_cache(cache: Path | None) -> dict[str, str]:
    if cache is None or not cache.is_file():
        return {}
    try:
        content = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}  # what cannot be read is computed again
    return content if isinstance(content, dict) else {}


def _write_cache(cache: Path, content: dict[str, str]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_name(f".{cache.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, sort_keys=True, indent=0))
    temporary.replace(cache)
