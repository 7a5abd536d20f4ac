"""A dataset on the Hugging Face Hub: whether a token may write it, and one commit of a folder's files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.core.errors import AssayError, Resumable, UserMistake

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Roles of an organisation's members who may write (huggingface.co/docs/hub/organizations-security).
_WRITERS = ("admin", "write", "contributor")


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
        """Upload these files of the folder in one commit; its address. Files of other names stay there.

        What an earlier attempt uploaded is not uploaded again. ``Resumable`` where the Hub breaks off.
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        api = self._api()
        try:
            api.create_repo(self.name, repo_type="dataset", private=self.private, exist_ok=True)
            # upload_folder may divide what it uploads into several commits.
            commit = api.create_commit(
                repo_id=self.name,
                repo_type="dataset",
                operations=[CommitOperationAdd(name, folder / name) for name in files],
                commit_message=message,
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
