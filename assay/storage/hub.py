"""Data sets on the Hugging Face Hub: the files of a commit, and their content. No other module reads them.

huggingface_hub finds the token by itself (``HF_TOKEN``, or the file that ``hf auth login`` writes), and sends
it to the Hub alone. This module neither keeps nor prints it. ``HF_ENDPOINT`` names another Hub.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from assay.core.digests import git_blob_of_file, sha256_of_file
from assay.core.errors import StoreFault, StoreRefusal

SCHEME = "hf://"

# As in huggingface_hub's HfFileSystem: a revision may be refs/pr/N or refs/convert/NAME, or hold %2F.
_ADDRESS = re.compile(
    r"hf://datasets/(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/(?P<path>.*))?",
    re.ASCII,
)
_RIGHTS = "If it is private, set HF_TOKEN to a token that may read it"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit."""

    name: str
    """Its path in the repository."""
    size: int
    check: str
    """``sha256:…`` of its content, or ``git:…`` with the name that git gives its content."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a revision stands for at the moment."""

    address: str
    """``hf://datasets/OWNER/NAME@COMMIT``."""
    files: tuple[HubFile, ...]


class DataSet:
    """A data set, as an address names it: ``hf://datasets/OWNER/NAME[@REVISION][/PATH]``.

    Every method raises StoreFault where the Hub does not answer, StoreRefusal where it refuses.
    """

    def __init__(self, address: str) -> None:
        matched = _ADDRESS.fullmatch(address)
        if matched is None:
            raise StoreRefusal(f"{address}: is not of the form hf://datasets/OWNER/NAME[@REVISION][/GLOB]")
        self.address = address
        self.path = matched["path"] or ""
        """What follows the repository: a path, a glob, or nothing."""
        self._repository = matched["repository"]
        self._revision = unquote(matched["revision"]) if matched["revision"] else None

    def commit(self) -> Commit:
        """The commit that the revision stands for now (``main`` where none is named), and its files."""
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        with self._errors("listed"):
            api = HfApi(endpoint=_endpoint())
            sha = api.dataset_info(self._repository, revision=self._revision).sha
            if sha is None:
                raise StoreRefusal(f"{self.address}: the Hub names no commit for it")
            tree = api.list_repo_tree(self._repository, repo_type="dataset", revision=sha, recursive=True)
            files = [
                HubFile(
                    one.path,
                    one.lfs.size if one.lfs else one.size,
                    f"sha256:{one.lfs.sha256}" if one.lfs else f"git:{one.blob_id}",
                )
                for one in tree
                if isinstance(one, RepoFile)
            ]
        return Commit(f"{SCHEME}datasets/{self._repository}@{sha}", tuple(files))

    def fetched(self, file: HubFile, folder: Path, go_on: Callable[[], None] = lambda: None) -> Path:
        """The path of a whole copy of the file below ``folder``; StoreFault where it is not what was listed.

        The address must name the commit. A download that breaks off goes on where it stopped.
        ``go_on`` is called now and then, and stops the download by raising.
        """
        from huggingface_hub import hf_hub_download

        # It logs the addresses of downloads, which may hold signatures.
        logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)
        with self._errors("read"):
            path = Path(
                hf_hub_download(
                    self._repository,
                    file.name,
                    repo_type="dataset",
                    revision=self._revision,
                    local_dir=folder,
                    endpoint=_endpoint(),
                    tqdm_class=_silent_bar(go_on),
                )
            )
        kind, _, stated = file.check.partition(":")
        found = sha256_of_file(path) if kind == "sha256" else git_blob_of_file(path)
        if path.stat().st_size != file.size or found != stated:
            raise StoreFault(
                f"{self.address}: arrived damaged: its content is not what the Hub lists. Run again"
            )
        return path

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn the Hub's errors into ours: one line with the address and what to do."""
        import httpx2
        from huggingface_hub import errors

        about = f"{self.address}: cannot be {what}"
        hub = (_endpoint() or "https://huggingface.co").rstrip("/")
        try:
            yield
        except errors.HFValidationError as error:
            raise StoreRefusal(f"{about}: {self._repository} is no name that a data set can have") from error
        except errors.OfflineModeIsEnabled as error:
            raise StoreRefusal(
                f"{about}: HF_HUB_OFFLINE is set, so nothing is copied from the Hub. "
                "Unset it, or name files of this machine"
            ) from error
        except errors.GatedRepoError as error:
            raise StoreRefusal(
                f"{about}: it is gated. Accept its terms at {hub}/datasets/{self._repository}, "
                "and set HF_TOKEN to a token of that account"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise StoreRefusal(f"{about}: {self._repository} has no revision {self._revision!r}") from error
        except errors.RepositoryNotFoundError as error:
            raise StoreRefusal(f"{about}: the Hub shows no data set {self._repository}. {_RIGHTS}") from error
        except errors.RemoteEntryNotFoundError as error:
            raise StoreRefusal(f"{about}: it is gone from the Hub") from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise StoreRefusal(f"{about}: the Hub says no ({status}). {_RIGHTS}") from error
            raise StoreFault(f"{about}: the Hub answers {status}. Run again later") from error
        except (errors.LocalEntryNotFoundError, httpx2.TransportError) as error:
            raise StoreFault(
                f"{about}: the Hub at {hub} cannot be reached from here. What is copied stays, and the same "
                "command goes on from there. Without a network, name files of this machine"
            ) from error
        except (errors.XetDownloadError, errors.FileMetadataError) as error:
            raise StoreFault(f"{about}: the Hub breaks off. Run again") from error


def is_data_set(address: str) -> bool:
    """Whether the text is a valid ``hf://datasets/OWNER/NAME``, with a revision and a path or without."""
    return _ADDRESS.fullmatch(address) is not None


def _endpoint() -> str | None:
    # Read now, and not when huggingface_hub is imported.
    return os.environ.get("HF_ENDPOINT") or None


def _silent_bar(go_on: Callable[[], None]) -> type:
    """A progress bar that shows nothing, and asks whether to go on."""

    class Silent:
        def __init__(self, *_: object, **__: object) -> None:
            self.n = 0

        def update(self, count: float = 1) -> None:
            go_on()

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_, **__: None

        def __enter__(self) -> Self:
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            pass

    return Silent
