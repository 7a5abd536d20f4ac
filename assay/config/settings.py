"""Settings that only an operator may make, in the environment or a settings file. No run can change them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from assay.config.options import catalog_names, complaint, family_names
from assay.config.yaml_text import shown
from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.rewards.endpoint import Endpoint
from assay.storage.addresses import is_place
from assay.storage.home import Home, default_root
from assay.storage.private import make_private
from assay.storage.regular import open_regular
from assay.storage.s3 import is_address

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _folders_by_name(value: object) -> object:
    """``chats=/srv/chats:mail=/srv/mail`` as names and folders."""
    if not isinstance(value, str):
        return value
    return _by_name(value, elsewhere=False)


def _places_by_name(value: object) -> object:
    """``chats=/srv/chats:new=s3://team/new`` as names, and folders or addresses."""
    return _by_name(value, elsewhere=True) if isinstance(value, str) else value


def _by_name(value: str, *, elsewhere: bool) -> dict[str, Path | str]:
    folders: dict[str, Path | str] = {}
    for one in filter(None, re.split(rf"{os.pathsep}(?!//)", value)):
        name, equals, path = one.partition("=")
        remote = elsewhere and is_place(path) and not glob.has_magic(path)
        if not equals or not _FOLDER_NAME.fullmatch(name) or not (os.path.isabs(path) or remote):
            meant = "NAME=/FOLDER"
            if elsewhere:
                meant += " or NAME=s3://BUCKET/PREFIX or NAME=hf://datasets/OWNER/NAME"
            raise ValueError(
                f"{one!r} is not of the form {meant}; write several as NAME=/FOLDER{os.pathsep}NAME=/FOLDER"
            )
        if name in folders:
            raise ValueError(f"names {name} twice")
        folders[name] = path.rstrip("/") if remote else Path(path)
    return folders


def _families_by_name(value: object) -> object:
    """``nemotron=first-token-logit:…`` as names and families."""
    known = family_names()
    return _said_of_folders(value, "FAMILY", known, f"a family is one of {', '.join(known)}")


def _published_by_name(value: object) -> object:
    """``nemotron=nvidia/Qwen-2.5-Nemotron-32B-Reward:…`` as names and names in the catalog."""
    return _said_of_folders(value, "MODEL", catalog_names(), "`assay models` lists the models of the catalog")


def _said_of_folders(value: object, meant: str, known: Sequence[str], which: str) -> object:
    """``NAME=WORD:…`` as names and words, each of them ``known``; ValueError says ``which`` there are."""
    if not isinstance(value, str):
        return value
    said: dict[str, str] = {}
    for one in filter(None, value.split(os.pathsep)):
        name, equals, word = one.partition("=")
        if not equals or word not in known:
            raise ValueError(f"{one!r} is not of the form NAME={meant}; {which}{did_you_mean(word, known)}")
        if name in said:
            raise ValueError(f"names {name} twice")
        said[name] = word
    return said


def _check_folders(families: dict[str, str], about: ValidationInfo) -> dict[str, str]:
    """The families unchanged; ValueError for a name that is no model folder's."""
    folders = about.data.get("model_folders", {})
    for name in families:
        if name not in folders:
            raise ValueError(
                f"names {name!r}, but ASSAY_MODEL_FOLDERS has no such folder{did_you_mean(name, folders)}"
            )
    return families


def _address_on_s3(value: str) -> str:
    if not is_address(value):
        raise ValueError("is not of the form s3://BUCKET/PREFIX")
    return value


def _web_address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise ValueError("is not of the form https://HOST/PATH")
    return value


NamedFolders = Annotated[dict[str, Path], NoDecode, BeforeValidator(_folders_by_name)]
NamedPlaces = Annotated[dict[str, Path | str], NoDecode, BeforeValidator(_places_by_name)]
NamedFamilies = Annotated[
    dict[str, str], NoDecode, BeforeValidator(_families_by_name), AfterValidator(_check_folders)
]

NamedModels = Annotated[
    dict[str, str], NoDecode, BeforeValidator(_published_by_name), AfterValidator(_check_folders)
]


class Settings(BaseSettings):
    """An operator's settings: environment variables, or lines of ``ASSAY_SETTINGS_FILE``."""

    model_config = SettingsConfigDict(env_prefix="ASSAY_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_root)
    """``ASSAY_HOME``: scores, plans, artifacts and Prefect's database, which all runs share."""
    score_store: Annotated[str, AfterValidator(_address_on_s3)] | None = None
    """``ASSAY_SCORE_STORE``: ``s3://BUCKET/PREFIX``, where scores are kept instead of in ``ASSAY_HOME``."""
    artifacts: Annotated[str, AfterValidator(_address_on_s3)] | None = None
    """``ASSAY_ARTIFACTS``: ``s3://BUCKET/PREFIX``, where the files of stages are kept instead."""
    scheduler_address: str | None = None
    """``ASSAY_SCHEDULER_ADDRESS``: a running Dask scheduler, such as ``tls://host:8786``."""
    trust_remote_code: bool = False
    """``ASSAY_TRUST_REMOTE_CODE``: let a model's repository run its own code, from a stated commit."""
    hub_token_variable: str | None = None
    """``ASSAY_HUB_TOKEN_VARIABLE``: the name of the environment variable that holds the Hub's token."""
    gpus_per_model: int = Field(default=1, ge=1)
    """``ASSAY_GPUS_PER_MODEL``: GPUs that one worker sees and spreads its model over."""
    device_map: str | None = None
    """``ASSAY_DEVICE_MAP``: how a model is spread, in transformers' terms; ``auto`` for several GPUs."""
    endpoints_file: Path | None = None
    """``ASSAY_ENDPOINTS_FILE``: a YAML file of reward services that ``--model`` may name."""
    data_roots: NamedPlaces = {}
    """``ASSAY_DATA_ROOTS``: ``NAME=/FOLDER:NAME=s3://BUCKET/PREFIX:…``, the only places that runs may read.

    An input then begins with a name.
    """
    output_roots: NamedFolders = {}
    """``ASSAY_OUTPUT_ROOTS``: ``NAME=/FOLDER:…``, the only folders that runs may write results to."""
    model_folders: NamedFolders = {}
    """``ASSAY_MODEL_FOLDERS``: ``NAME=/FOLDER:…``, reward models of this machine by name."""
    model_families: NamedFamilies = {}
    """``ASSAY_MODEL_FAMILIES``: ``NAME=FAMILY:…``, the families of models whose folders do not say it."""
    model_names: NamedModels = {}
    """``ASSAY_MODEL_NAMES``: ``NAME=OWNER/MODEL:…``, which models of the catalog lie in those folders."""
    notification_block: str | None = None
    """``ASSAY_NOTIFICATION_BLOCK``: a Prefect notification block to report failed runs of deployments."""
    results_url: Annotated[str, AfterValidator(_web_address)] | None = None
    """``ASSAY_RESULTS_URL``: where the output roots are served, such as ``https://results.example.org``.

    Prefect's pages then link each run's ``report.html``, below it by the name of the output.
    """
    keep_days: int | None = Field(default=None, ge=1)
    """``ASSAY_KEEP_DAYS``: after so many days without use, runs of deployments remove what stages made.

    Converted records, for example, but no score. None: all stays.
    """
    server_start_seconds: float = Field(default=120.0, gt=0)
    """``ASSAY_SERVER_START_SECONDS``: how long the embedded Prefect server may take to start."""
    server_answer_seconds: float = Field(default=4.0, gt=0)
    """``ASSAY_SERVER_ANSWER_SECONDS``: how long a configured Prefect server may take to answer."""

    @classmethod
    def read(cls) -> Self:
        """The present settings; UserMistake names the variable that is wrong."""
        file = os.environ.get("ASSAY_SETTINGS_FILE")
        if file:
            try:
                open_regular(file).close()
            except FileNotFoundError:
                raise UserMistake(f"ASSAY_SETTINGS_FILE: there is no file {file}") from None
            except OSError as error:
                raise UserMistake(f"ASSAY_SETTINGS_FILE: {file} cannot be read: {error.strerror}") from error
        arguments: dict[str, Any] = {"_env_file": file} if file else {}
        try:
            settings = cls(**arguments)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False)[0]
            variable = "ASSAY_" + str(found["loc"][0]).upper()
            raise UserMistake(f"{variable} {shown(found['input'])}: {complaint(found['msg'])}") from error
        home = Path(os.path.abspath(settings.home.expanduser()))
        return settings.model_copy(update={"home": home})

    def served_results(self) -> str | None:
        """The address below which a folder of results has its output's name; None: nobody serves them."""
        return self.results_url if self.output_roots else None

    def endpoints(self) -> dict[str, Endpoint]:
        """The operator's reward services by name; UserMistake names the file, the endpoint, the field."""
        if self.endpoints_file is None:
            return {}
        from assay.config.endpoints import read_endpoints

        return read_endpoints(self.endpoints_file.expanduser())

    def opened_home(self) -> Home:
        """``ASSAY_HOME``; a new folder is made private. UserMistake where it cannot be used."""
        try:
            make_private(self.home)
            home = Home(self.home, self.score_store, self.artifacts)
            home.close_to_others()
        except OSError as error:
            raise UserMistake(
                f"ASSAY_HOME: {self.home} cannot be used: {error.strerror}. "
                "Set ASSAY_HOME to a folder that you may write"
            ) from error
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise UserMistake(
                f"ASSAY_HOME: {self.home} cannot be written. Set ASSAY_HOME to a folder that you may write"
            )
        for folder in home.folders:
            if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise UserMistake(
                    f"ASSAY_HOME: {folder} belongs to another user, and only that user may use it. Set "
                    "ASSAY_HOME to a folder of your own; to share scores, keep them on S3 (ASSAY_SCORE_STORE)"
                )
        return home
