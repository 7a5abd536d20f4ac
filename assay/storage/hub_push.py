"""A dataset on the Hugging Face Hub: whether a token may write it, and one commit of a folder's files.

Each push also writes ``assay-files.json``, which names its files with their digests. The next push takes away
those of them that it does not write and that are still as they were. All else is a person's, and stays.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from assay.core.digests import git_blob_of_file
from assay.core.errors import AssayError, Resumable, UserMistake

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Names the files that a push wrote.
PUSHED = "assay-files.json"
#: Roles of an organisation's members who may write (huggingface.co/docs/hub/organizations-security).
_WRITERS = ("admin", "write", "contributor")


class _PushedFile(msgspec.Struct, frozen=True):
    """A file as it was pushed, by what the Hub may state of it."""

    sha256: str
    git: str
    """The name that git gives its content."""


class _Pushed(msgspec.Struct, frozen=True):
    """The content of ``assay-files.json``."""

    files: Mapping[str, _PushedFile] = {}


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset's place on the Hub, and the token that writes it."""

    name: str
    """``OWNER/NAME``."""
    token: str
    private: bool = True
    """Whether the dataset is made private, where it is not there yet."""
    endpoint: str | None = None
    """The Hub's address; None: huggingface_hub's own (``HF_ENDPOINT``)."""

    def __repr__(self) -> str:
        return f"HubDataset({self.name!r}, private={self.private})"

    def check(self) -> None:
        """Nothing, or UserMistake where the token may not write there. Changes nothing."""
        from huggingface_hub.errors import HfHubHTTPError

        owner = self.name.partition("/")[0]
        try:
            who = self._api().whoami()
        except HfHubHTTPError as error:
            raise UserMistake(
                f"--push-to-hub {self.name}: the Hub does not accept the token: {_said(error)}"
            ) from error
        except _broken_off() as error:
            raise UserMistake(
                f"--push-to-hub {self.name}: the Hub cannot be reached: {error}. Leave the option out, and "
                "push later with the same command."
            ) from error
        role = who.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise UserMistake(
                f"--push-to-hub {self.name}: the token may only read. Make one that may write, and put it "
                "into the variable that ASSAY_HUB_TOKEN_VARIABLE names."
            )
        roles = {org.get("name"): org.get("roleInOrg") for org in who.get("orgs", [])}
        if owner != who.get("name") and roles.get(owner, "") not in _WRITERS:
            mine = ", ".join([who.get("name", ""), *(name for name in roles if roles[name] in _WRITERS)])
            raise UserMistake(
                f"--push-to-hub {self.name}: this token may not write to {owner}; it may to {mine}."
            )

    def push(self, folder: Path, files: Sequence[str], *, message: str) -> str:
        """Upload these files of the folder in one commit; its address.

        The commit removes what an earlier push wrote and this one does not, unless it was changed since. What
        an earlier attempt uploaded is not uploaded again. ``Resumable`` where the Hub breaks off.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        api = self._api()
        try:
            api.create_repo(self.name, repo_type="dataset", private=self.private, exist_ok=True)
            parent = api.dataset_info(self.name).sha
            added = [CommitOperationAdd(name, folder / name) for name in files]
            written = {
                one.path_in_repo: _PushedFile(
                    one.upload_info.sha256.hex(), git_blob_of_file(folder / one.path_in_repo)
                )
                for one in added
            }
            listed = msgspec.json.format(msgspec.json.encode(_Pushed(written)), indent=2) + b"\n"
            removed = [CommitOperationDelete(name) for name in self._no_longer_written(files, parent)]
            # upload_folder may divide what it uploads into several commits.
            commit = api.create_commit(
                repo_id=self.name,
                repo_type="dataset",
                operations=[*added, CommitOperationAdd(PUSHED, listed), *removed],
                commit_message=message,
                # What somebody else commits meanwhile is not removed unseen.
                parent_commit=parent,
            )
        except HfHubHTTPError as error:
            status = error.response.status_code
            what = f"--push-to-hub {self.name}: {_said(error)}. The results are in {folder}"
            if status in (401, 403):
                raise AssayError(f"{what}; give a token that may write, and run the same command") from error
            raise Resumable(f"{what}; the same command goes on with the upload") from error
        except _broken_off() as error:
            raise Resumable(
                f"--push-to-hub {self.name}: the Hub broke off: {error}. The results are in {folder}; the "
                "same command goes on with the upload"
            ) from error
        return str(commit.commit_url)

    def _no_longer_written(self, files: Sequence[str], commit: str | None) -> Iterator[str]:
        """Yield the names of unchanged files of the push before that are not among ``files``."""
        from huggingface_hub.hf_api import RepoFile

        tree = self._api().list_repo_tree(self.name, repo_type="dataset", revision=commit, recursive=True)
        there = {one.path: one for one in tree if isinstance(one, RepoFile)}
        if PUSHED not in there:
            return
        for name, pushed in self._pushed(commit).items():
            file = there.get(name)
            if file is None or name in files:
                continue
            if pushed.sha256 == file.lfs.sha256 if file.lfs else pushed.git == file.blob_id:
                yield name

    def _pushed(self, commit: str | None) -> Mapping[str, _PushedFile]:
        """The files of the push before; none where its list cannot be read: a person has changed it."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._api().hf_hub_download(
                self.name, PUSHED, repo_type="dataset", revision=commit, local_dir=folder
            )
            try:
                return msgspec.json.decode(Path(path).read_bytes(), type=_Pushed).files
            except msgspec.DecodeError:
                return {}

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token)


def hub_dataset(name: str, token_variable: str | None, *, private: bool) -> HubDataset:
    """The dataset of that name; UserMistake where the name is none, or no token is named."""
    if not _REPOSITORY.fullmatch(name):
        raise UserMistake(f"--push-to-hub {name}: write OWNER/NAME")
    token = os.environ.get(token_variable, "") if token_variable else ""
    if not token:
        raise UserMistake(
            f"--push-to-hub {name}: no token. Put one that may write into an environment variable, and name "
            "the variable in ASSAY_HUB_TOKEN_VARIABLE."
        )
    return HubDataset(name, token, private)


def _broken_off() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises where no answer comes."""
    import httpx2

    return OSError, httpx2.TransportError


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
