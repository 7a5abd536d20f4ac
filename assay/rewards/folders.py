"""Where a model's files are: a folder that is named, or the local copy of a model on the Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.rewards.adapter_settings import CONFIG as ADAPTER_CONFIG
from assay.rewards.adapter_settings import tokenizer_folder
from assay.rewards.adapters import Adapter, adapter_in
from assay.rewards.catalog import CATALOG
from assay.rewards.fingerprint import CODE, SETTINGS, WEIGHTS
from assay.rewards.options import LoadOptions
from assay.storage.regular import irregular_in

#: Files that say which file holds which tensor.
INDEX = "*.safetensors.index.json"

_DOWNLOADED = (*SETTINGS, WEIGHTS, INDEX, ADAPTER_CONFIG)

_SEE = "docs/models.md lists what --model takes"


class Folders(NamedTuple):
    """Where a model's files are."""

    model: Path
    """Its weights and settings; of an adapter, those of its base."""
    adapter: Adapter | None = None

    @property
    def tokenizer(self) -> Path:
        """Its tokenizer and chat template: an adapter's own, where it has them."""
        return tokenizer_folder(self.model, None if self.adapter is None else self.adapter.folder)


def folders_of(name: str, source: str, revision: str | None, loading: LoadOptions) -> Folders:
    """The folders on this machine that hold the model called ``name``; ``UserMistake`` where none does.

    ``source`` is a folder, or an id on the Hub, from which the files are fetched if they are not here yet.
    """
    folder = _folder_of(name, source, revision, loading)
    adapter = adapter_in(name, folder)
    if adapter is not None:
        of_base = f"{name}: the base of this LoRA adapter ({adapter.base})"
        base = _folder_of(of_base, adapter.base, adapter.revision, loading)
        if (base / ADAPTER_CONFIG).is_file():
            raise UserMistake(
                f"model {name}: its base {adapter.base} is an adapter itself; merge that one first"
            )
        folder = base
    if not (folder / "config.json").exists():
        raise UserMistake(f"model {name}: {folder} has no config.json, so it is not a model's folder")
    return Folders(folder, adapter)


def _folder_of(name: str, source: str, revision: str | None, loading: LoadOptions) -> Path:
    """The folder of what is called ``name``: a model, or an adapter."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if found := irregular_in(folder):
            raise UserMistake(f"model {name}: {found}")
        folder = folder.resolve()
        if revision is not None and folder.name != revision:
            raise UserMistake(
                f"model {name}: --revision {revision} is for models on the Hub; {folder} holds one revision"
            )
        return folder
    looks_like_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    if looks_like_hub_id:
        return _from_hub(name, source, revision, loading)
    raise UserMistake(_unknown(name))


def _unknown(name: str) -> str:
    """Why ``name`` is no model, where it cannot be one of the Hub's."""
    if "/" in name or name.startswith((".", "~")):
        what = (
            "this is a file, not a folder" if Path(name).expanduser().exists() else "there is no such folder"
        )
        return f"model {name}: {what}; {_SEE}"
    return f"unknown model {name!r}{did_you_mean(name, CATALOG)} ({_SEE})"


def _from_hub(name: str, hub_id: str, revision: str | None, loading: LoadOptions) -> Path:
    """The local copy of a model on the Hub, fetched if it is not there and the Hub can be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = None
    if loading.hub_token_variable is not None:
        token = os.environ.get(loading.hub_token_variable)
        if not token:
            raise UserMistake(
                f"ASSAY_HUB_TOKEN_VARIABLE names {loading.hub_token_variable}, which is not set; put the "
                "Hub's token into it"
            )
    patterns = [*_DOWNLOADED, CODE] if loading.trust_remote_code else list(_DOWNLOADED)
    try:
        return Path(snapshot_download(hub_id, revision=revision, token=token, allow_patterns=patterns))
    except GatedRepoError as error:
        raise UserMistake(
            f"model {name}: {hub_id} is gated: accept its terms at https://huggingface.co/{hub_id} "
            "with your account, put a token of it into an environment variable, and name that variable in "
            "ASSAY_HUB_TOKEN_VARIABLE"
        ) from error
    except RevisionNotFoundError as error:
        raise UserMistake(f"model {name}: {hub_id} has no revision {revision!r} on the Hub") from error
    except RepositoryNotFoundError as error:
        raise UserMistake(
            f"model {name}: the Hub shows no {hub_id}, and there is no such folder"
            f"{did_you_mean(name, CATALOG)} ({_SEE}; for a private one, name the environment variable that "
            "holds a token in ASSAY_HUB_TOKEN_VARIABLE)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise UserMistake(
            f"model {name}: the Hub cannot be reached from here, and {hub_id} is neither in its local cache "
            f"nor a folder{did_you_mean(name, CATALOG)} ({_SEE})"
        ) from error
    except HfHubHTTPError as error:
        raise UserMistake(f"model {name}: the Hub says no to {hub_id}: {error}") from error
