"""The fingerprint of a model in a folder: it changes with whatever could change a score.

It covers the weights, the tokenizer, the template and the settings as files, how the model is read, and
the versions of the libraries that render and tokenize (major and minor: a patch only mends, and paying for
every score again after each would be worse). It covers no secret, no address, and not where the folder lies.
"""

from __future__ import annotations

import logging
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from assay.core.digests import digest_of_content, digest_of_file
from assay.rewards.adapter_settings import settings_digest
from assay.rewards.families import AS_TRANSFORMERS
from assay.storage.home import written_whole
from assay.storage.sealed import Altered, sealed_json, unsealed

#: Counted up whenever the engine would give the same conversation another score, or report more of it.
ENGINE_VERSION = 3

#: Files that a score depends on. Weights are safetensors alone: a pickle could run anything.
WEIGHTS = "*.safetensors"
SETTINGS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
CODE = "*.py"

_DIGESTS = "digests of weights"

_LOGGER = logging.getLogger(__name__)

_RENDERING_LIBRARIES = ("transformers", "tokenizers")


def fingerprint(
    folder: Path,
    *,
    family: str,
    attributes: tuple[str, ...],
    dtype: str,
    max_tokens: int,
    over_length: str,
    remote_code: bool,
    digest_cache: Path | None,
    read_at: str | None = None,
    add_bos: bool | None = None,
    adapter: Path | None = None,
) -> str:
    """32 hex digits for the model that is in ``folder`` now, read in this way.

    ``read_at`` and ``add_bos`` are in it only where they change what is read: all other models keep the
    fingerprint that they had before there was a choice.
    ``digest_cache``: a JSON file in which digests of weights are kept by place, size and time.
    ``adapter``: the folder of the LoRA adapter that is merged into the model.
    """
    versions = (metadata.version(name).split(".")[:2] for name in _RENDERING_LIBRARIES)
    parts = [
        *(f"{name} {digest}" for name, digest in _file_digests(folder, digest_cache, code=remote_code)),
        family,
        ",".join(attributes),
        dtype,
        str(max_tokens),
        over_length,
        str(ENGINE_VERSION),
        *(".".join(version) for version in versions),
        *([f"read at {read_at}"] if read_at == AS_TRANSFORMERS else []),
        *(["with BOS"] if add_bos else []),
        *(_of_adapter(adapter, digest_cache) if adapter is not None else []),
    ]
    return digest_of_content("\n".join(parts).encode())


def _of_adapter(adapter: Path, digest_cache: Path | None) -> list[str]:
    """What a score depends on of an adapter: its tensors, its settings, its tokenizer, and who merges it."""
    return [
        *(f"adapter {name} {digest}" for name, digest in _file_digests(adapter, digest_cache)),
        f"adapter settings {settings_digest(adapter)}",
        "peft " + ".".join(metadata.version("peft").split(".")[:2]),
    ]


def weights_digests(folder: Path, digest_cache: Path | None) -> dict[str, str]:
    """The digest of every file of weights in the folder, by its name."""
    return {name: digest for name, digest in _file_digests(folder, digest_cache) if fnmatch(name, WEIGHTS)}


def _file_digests(folder: Path, cache: Path | None, *, code: bool = False) -> list[tuple[str, str]]:
    known = _read_cache(cache)
    digests = []
    fresh = dict(known)
    for pattern in (WEIGHTS, *SETTINGS, *((CODE,) if code else ())):
        for path in sorted(folder.glob(pattern)):
            stat = path.stat()
            stamp = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
            digest = known.get(stamp) if pattern == WEIGHTS else None
            if digest is None:
                digest = digest_of_file(path)
                if pattern == WEIGHTS:
                    fresh[stamp] = digest
            digests.append((str(path.relative_to(folder)), digest))
    if cache is not None and fresh != known:
        _write_cache(cache, fresh)
    return digests


def _read_cache(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {}
    try:
        return dict(unsealed(cache.read_bytes(), about=_DIGESTS)[_DIGESTS])
    except FileNotFoundError:
        return {}
    except (OSError, Altered) as error:
        _LOGGER.warning(
            "%s: is damaged, or of an earlier version (%s); weights are read again for their digests",
            cache,
            error,
        )
        return {}


def _write_cache(cache: Path, digests: dict[str, str]) -> None:
    with written_whole(cache) as temporary:
        temporary.write_bytes(sealed_json({_DIGESTS: digests}, about=_DIGESTS))
