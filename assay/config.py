"""What a run may choose, and what only an operator may set.

``RunOptions`` is the one definition of a run's options: the command line, a ``--config`` file and the
form in Prefect's UI are made from its fields. ``Settings`` comes from the operator's environment alone,
so that nothing a run asks for can widen what it may do.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import CoreSchema, core_schema
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from assay.errors import UserMistake
from assay.home import Home
from assay.nearest import did_you_mean
from assay.private import make_private
from assay.regular import open_regular, read_regular
from assay.rewards.endpoint import Endpoint
from assay.s3 import is_address
from assay.yaml_text import NotYAML, parsed_yaml, shown

Options = TypeVar("Options", bound=BaseModel)


#: No number of an option is larger.
MOST = 10**12


@dataclass(frozen=True, slots=True)
class CommandLine:
    """How an option looks on the command line; part of a field's annotation, in no schema."""

    group: str
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """One of the names that a table holds, which is imported when it is asked for and not before."""

    names: Callable[[], Sequence[str]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse every other name, with the nearest one."""
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The names as an ``enum``, of which Prefect's form makes a list to choose from."""
        return {**handler(schema), "enum": list(self.names())}

    def _known(self, name: str) -> str:
        names = self.names()
        if name not in names:
            raise ValueError(f"should be one of {', '.join(names)}{did_you_mean(name, names)}")
        return name


def _format_names() -> list[str]:
    from assay.formats import FORMATS

    return ["auto", *FORMATS]


def _export_names() -> list[str]:
    from assay.export import EXPORTS

    return list(EXPORTS)


def _family_names() -> list[str]:
    from assay.rewards.families import FAMILIES

    return list(FAMILIES)


def _listed(value: object) -> object:
    """One value where a list is due, as in ``input: chats.jsonl``, is a list of one."""
    return [value] if isinstance(value, str) else value


Listed = BeforeValidator(_listed)

_DATA = "what goes in and comes out"
_MODEL = "the reward model"
_CHOICE = "what is kept"
_WORK = "how the run works"


def in_this_order(schema: dict[str, Any]) -> None:
    """Number the fields, which Prefect's form goes by: PostgreSQL gives a schema's keys back by length."""
    for position, field in enumerate(schema["properties"].values()):
        field["position"] = position


def in_form(description: str) -> dict[str, Any]:
    """What a field of Prefect's form says in place of the command line's help: there, all goes by names."""
    return {"description": description}


#: What a deployment takes for a model, whatever it is for.
MODEL_IN_FORM = "A model by its name in the catalog, or in the operator's lists of folders and of services"


#: How a model is read where that is not for the model alone to say. Of every command that uses one.
FamilyName = Annotated[
    Annotated[str, Chosen(_family_names)] | None,
    Field(
        title="Family",
        description="How the model is read where neither the catalog nor its architecture says so: a "
        "*ForCausalLM whose score is the logit of vocabulary id 0 is of the family first-token-logit.",
    ),
    CommandLine(_MODEL, "NAME"),
]
ReadAt = Annotated[
    Literal["last-token", "transformers"] | None,
    Field(
        title="Read at",
        description="Where a *ForSequenceClassification is read whose template ends in its padding token: at "
        "the last token, or where transformers' own head reads it, before the padding; unless given, at the "
        "last token, and the run says so.",
    ),
    CommandLine(_MODEL),
]
AddBos = Annotated[
    bool | None,
    Field(
        title="Begin with BOS",
        description="Begin a conversation with the token that the tokenizer puts before a text, as "
        "tokenizer(text) does, where the template writes none; unless given, as the model's card does, or "
        "not, and the run says so.",
    ),
    CommandLine(_MODEL),
]


class RunOptions(BaseModel):
    """What one run of ``flows.curate`` is asked to do."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=in_this_order)

    input: Annotated[
        list[str],
        Listed,
        Field(
            title="Inputs",
            description="What to read: files, folders or globs, on disk or on S3 (s3://BUCKET/…). Names end "
            "in .jsonl, .ndjson, .json (also with .gz, .zst or .zstd) or .parquet.",
            json_schema_extra=in_form(
                "What to read: files, folders or globs below a folder that the operator opened, such as "
                "data/new/*.jsonl. Names end in .jsonl, .ndjson, .json (also with .gz, .zst or .zstd) or "
                ".parquet."
            ),
            min_length=1,
        ),
        CommandLine(_DATA, "PATH_OR_GLOB"),
    ]
    output: Annotated[
        str,
        Field(
            title="Output folder",
            description="Folder for the results. It is replaced as a whole, and only by a run that ends.",
            json_schema_extra=in_form(
                "Folder for the results, below one that the operator opened, such as results/first. It is "
                "replaced as a whole, and only by a run that ends."
            ),
            min_length=1,
        ),
        CommandLine(_DATA, "DIR"),
    ]
    release: Annotated[
        bool,
        Field(
            title="Release what is new",
            description="Write a dated release into a folder of its own below the output folder, of the "
            "input files that no earlier release there holds; with nothing new, write nothing.",
        ),
        CommandLine(_DATA),
    ] = False
    format: Annotated[
        str,
        Chosen(_format_names),
        Field(title="Input format", description="Format of the inputs; auto looks at their content."),
        CommandLine(_DATA, "NAME"),
    ] = "auto"
    limit: Annotated[
        int | None,
        Field(title="Limit", description="Take the first N records only.", ge=1, le=MOST),
        CommandLine(_DATA, "N"),
    ] = None
    export: Annotated[
        list[Annotated[str, Chosen(_export_names)]],
        Listed,
        Field(
            title="Exports",
            description="Files to write: steerlm is labeled.jsonl, messages is messages.jsonl.",
            min_length=1,
        ),
        CommandLine(_DATA),
    ] = ["steerlm"]
    model: Annotated[
        str,
        Field(
            title="Reward model",
            description="A model of the catalog by name, a Hugging Face id (owner/name), the folder of one "
            "on this machine, or a service of the operator's list.",
            json_schema_extra=in_form(f"{MODEL_IN_FORM}."),
            min_length=1,
        ),
        CommandLine(_MODEL, "NAME_OR_PATH"),
    ] = "starter"
    revision: Annotated[
        str | None,
        Field(
            title="Revision",
            description="Branch, tag or commit of a model on the Hub; unless given, its main branch.",
        ),
        CommandLine(_MODEL, "COMMIT"),
    ] = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Field(
            title="Number format",
            description="What the model computes in; unless given, what its card says, or float32.",
        ),
        CommandLine(_MODEL),
    ] = None
    family: FamilyName = None
    read_at: ReadAt = None
    add_bos: AddBos = None
    attributes: Annotated[
        list[str],
        Listed,
        Field(
            title="Names of the outputs",
            description="What each output of the model rates, in their order, where its config.json does not "
            "say.",
        ),
        CommandLine(_MODEL, "NAME"),
    ] = []
    weights: Annotated[
        list[str],
        Listed,
        Field(
            title="Weights",
            description="Make weighted_reward of the attributes, by weights such as helpfulness=0.65; unless "
            "given, the published ones, where there are any.",
        ),
        CommandLine(_MODEL, "NAME=NUMBER"),
    ] = []
    max_tokens: Annotated[
        int | None,
        Field(
            title="Longest turn",
            description="Tokens through a turn that the model is shown at most; unless given, its own limit.",
            ge=1,
            le=MOST,
        ),
        CommandLine(_MODEL, "N"),
    ] = None
    over_length: Annotated[
        Literal["quarantine", "left-truncate"],
        Field(
            title="Over-length turns",
            description="What becomes of a turn beyond the model's token limit: set aside, or scored "
            "without its oldest tokens.",
        ),
        CommandLine(_MODEL),
    ] = "quarantine"
    keep: Annotated[
        list[str],
        Listed,
        Field(
            title="Rules",
            description="Keep a record whose last turn satisfies this, such as 'helpfulness >= 2 and "
            "toxicity < 1'. Of several rules all must hold.",
        ),
        CommandLine(_CHOICE, "RULE"),
    ] = []
    allow_cross_prompt: Annotated[
        bool,
        Field(
            title="Compare across prompts",
            description="Allow a threshold on a scalar reward, although such rewards compare answers to "
            "one prompt only.",
        ),
        CommandLine(_CHOICE),
    ] = False
    strict: Annotated[
        bool,
        Field(
            title="Strict",
            description="Stop at the first record that would be quarantined: before scoring "
            "where it cannot be read, before anything is written where a turn of it could not be scored.",
        ),
        CommandLine(_CHOICE),
    ] = False
    workers: Annotated[
        int | None,
        Field(
            title="Workers",
            description="Processes that score; unless given, one a GPU, or one a CPU core as far as memory "
            "holds so many models.",
            ge=1,
            le=MOST,
        ),
        CommandLine(_WORK, "N"),
    ] = None
    shard_tokens: Annotated[
        int | None,
        Field(
            title="Shard size",
            description="Estimated tokens a score shard holds; unless given, work for 20 s to 2 min, "
            "estimated from the model's size.",
            ge=1,
            le=MOST,
        ),
        CommandLine(_WORK, "N"),
    ] = None
    stop_after: Annotated[
        Literal["convert", "score"] | None,
        Field(
            title="Stop after",
            description="End after this stage and write what there is by then; no rules, no exports.",
        ),
        CommandLine(_WORK),
    ] = None
    dry_run: Annotated[
        bool,
        Field(
            title="Dry run",
            description="Convert, say what would be scored, and write nothing to the output folder.",
        ),
        CommandLine(_WORK),
    ] = False


def option_name(field: str) -> str:
    """The option of that field as it is typed: ``--shard-tokens``."""
    return "--" + field.replace("_", "-")


def read_config_file(path: str, kind: type[BaseModel]) -> dict[str, object]:
    """The options a YAML file gives, by field; UserMistake names the file, and the line where it can.

    Keys are written as the options are, with ``-`` or ``_``.
    """
    try:
        text = read_regular(path).decode("utf-8")
    except OSError as error:
        raise UserMistake(f"{path}: the config file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserMistake(f"{path}: the config file is not UTF-8 text") from error
    try:
        data = parsed_yaml(text)
    except NotYAML as error:
        where = f"{path}:{error.line}" if error.line else path
        raise UserMistake(f"{where}: not YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserMistake(f"{path}: the config file holds no options; write lines such as 'model: starter'")
    given: dict[str, object] = {}
    for key, value in data.items():
        field = key.replace("-", "_") if isinstance(key, str) else ""
        if field not in kind.model_fields:
            raise UserMistake(
                f"{path}: unknown option {shown(key)}{did_you_mean(field, kind.model_fields)} "
                f"(options: {', '.join(kind.model_fields)})"
            )
        if field in given:
            raise UserMistake(f"{path}: {key!r} is given twice")
        given[field] = value
    return given


def options_from(
    kind: type[Options],
    *,
    typed: Mapping[str, object],
    filed: Mapping[str, object] | None = None,
    config_file: str | None = None,
) -> Options:
    """The options, where what was ``typed`` overrides what a file gave; UserMistake names the source."""
    given = {**(filed or {}), **typed}
    for name, value in given.items():
        where = option_name(name) if name in typed else f"{config_file}: {name}"
        for word in value if isinstance(value, list) else [value]:
            if not isinstance(word, str):
                continue
            # Bytes of a command line that are no text come as halves of surrogate pairs, as YAML escapes.
            if not word.isascii() and word != word.encode(errors="ignore").decode():
                raise UserMistake(f"{where} {shown(word)}: is not UTF-8. Rename what it names")
            if "\0" in word:
                raise UserMistake(f"{where} {shown(word)}: holds a NUL, which no name does")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)[0]
        field = str(found["loc"][0]) if found["loc"] else ""
        in_file = field in (filed or {}) and field not in typed
        where = f"{config_file}: {field}" if in_file else option_name(field)
        if found["type"] == "missing":
            raise UserMistake(f"{where} is required; see --help") from error
        raise UserMistake(f"{where} {shown(found['input'])}: {_complaint(found['msg'])}") from error


def _complaint(message: str) -> str:
    """Pydantic's sentence as part of ours."""
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return (message[:1].lower() + message[1:]).replace(", unable to parse string as an integer", "")


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("assay", appauthor=False))


_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _folders_by_name(value: object) -> object:
    """``chats=/srv/chats:mail=/srv/mail`` as names and folders."""
    if not isinstance(value, str):
        return value
    return _by_name(value, on_s3=False)


def _places_by_name(value: object) -> object:
    """``chats=/srv/chats:new=s3://team/new`` as names, and folders or addresses."""
    return _by_name(value, on_s3=True) if isinstance(value, str) else value


def _by_name(value: str, *, on_s3: bool) -> dict[str, Path | str]:
    folders: dict[str, Path | str] = {}
    for one in filter(None, re.split(rf"{os.pathsep}(?!//)", value)):
        name, equals, path = one.partition("=")
        remote = on_s3 and is_address(path) and not glob.has_magic(path)
        if not equals or not _FOLDER_NAME.fullmatch(name) or not (os.path.isabs(path) or remote):
            meant = "NAME=/FOLDER or NAME=s3://BUCKET/PREFIX" if on_s3 else "NAME=/FOLDER"
            raise ValueError(
                f"{one!r} is no {meant}; several are written as NAME=/FOLDER{os.pathsep}NAME=/FOLDER"
            )
        if name in folders:
            raise ValueError(f"names {name} twice")
        folders[name] = path.rstrip("/") if remote else Path(path)
    return folders


def _families_by_name(value: object) -> object:
    """``nemotron=first-token-logit:…`` as names and families."""
    if not isinstance(value, str):
        return value
    families: dict[str, str] = {}
    for one in filter(None, value.split(os.pathsep)):
        name, equals, family = one.partition("=")
        if not equals or family not in _family_names():
            raise ValueError(
                f"{one!r} is no NAME=FAMILY; a family is one of {', '.join(_family_names())}"
                f"{did_you_mean(family, _family_names())}"
            )
        if name in families:
            raise ValueError(f"names {name} twice")
        families[name] = family
    return families


def _of_folders(families: dict[str, str], about: ValidationInfo) -> dict[str, str]:
    """The same, once every name is one of a folder."""
    folders = about.data.get("model_folders", {})
    for name in families:
        if name not in folders:
            raise ValueError(
                f"names {name!r}, and ASSAY_MODEL_FOLDERS names no folder so{did_you_mean(name, folders)}"
            )
    return families


def _address_on_s3(value: str) -> str:
    if not is_address(value):
        raise ValueError("is no s3://BUCKET/PREFIX")
    return value


NamedFolders = Annotated[dict[str, Path], NoDecode, BeforeValidator(_folders_by_name)]
NamedPlaces = Annotated[dict[str, Path | str], NoDecode, BeforeValidator(_places_by_name)]
NamedFamilies = Annotated[
    dict[str, str], NoDecode, BeforeValidator(_families_by_name), AfterValidator(_of_folders)
]


class Settings(BaseSettings):
    """What only an operator may set: environment variables, or lines of ``ASSAY_SETTINGS_FILE``."""

    model_config = SettingsConfigDict(env_prefix="ASSAY_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(default_factory=_default_home)
    """``ASSAY_HOME``: scores, plans, artifacts and Prefect's database; they serve every run."""
    score_store: Annotated[str, AfterValidator(_address_on_s3)] | None = None
    """``ASSAY_SCORE_STORE``: ``s3://BUCKET/PREFIX``, where scores are kept instead of in ``ASSAY_HOME``."""
    scheduler_address: str | None = None
    """``ASSAY_SCHEDULER_ADDRESS``: a running Dask scheduler, such as ``tls://host:8786``."""
    trust_remote_code: bool = False
    """``ASSAY_TRUST_REMOTE_CODE``: let a model's repository run its own code, from a commit that is given."""
    hub_token_variable: str | None = None
    """``ASSAY_HUB_TOKEN_VARIABLE``: the name of the environment variable that holds the Hub's token."""
    gpus_per_model: int = Field(default=1, ge=1)
    """``ASSAY_GPUS_PER_MODEL``: GPUs that one worker sees and spreads its model over."""
    device_map: str | None = None
    """``ASSAY_DEVICE_MAP``: how it is spread, as transformers takes it; ``auto`` over several GPUs."""
    endpoints_file: Path | None = None
    """``ASSAY_ENDPOINTS_FILE``: a YAML file of reward services that ``--model`` may name."""
    data_roots: NamedPlaces = {}
    """``ASSAY_DATA_ROOTS``: ``NAME=/FOLDER:…``, all that runs may read; inputs then begin with a name.

    Also ``NAME=s3://BUCKET/PREFIX``.
    """
    output_roots: NamedFolders = {}
    """``ASSAY_OUTPUT_ROOTS``: ``NAME=/FOLDER:…``, all that runs may write results to."""
    model_folders: NamedFolders = {}
    """``ASSAY_MODEL_FOLDERS``: ``NAME=/FOLDER:…``, reward models of this machine by a name."""
    model_families: NamedFamilies = {}
    """``ASSAY_MODEL_FAMILIES``: ``NAME=FAMILY:…``, how those are read whose folders do not say it."""
    notification_block: str | None = None
    """``ASSAY_NOTIFICATION_BLOCK``: a notification block of Prefect, told of deployed runs that fail."""
    server_start_seconds: float = Field(default=120.0, gt=0)
    """``ASSAY_SERVER_START_SECONDS``: how long the embedded Prefect server may take to start."""
    server_answer_seconds: float = Field(default=4.0, gt=0)
    """``ASSAY_SERVER_ANSWER_SECONDS``: how long a configured Prefect server may take to answer."""

    @classmethod
    def read(cls) -> Self:
        """The settings in force now; UserMistake names the variable that is wrong."""
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
            raise UserMistake(f"{variable} {shown(found['input'])}: {_complaint(found['msg'])}") from error
        home = Path(os.path.abspath(settings.home.expanduser()))
        return settings.model_copy(update={"home": home})

    def endpoints(self) -> dict[str, Endpoint]:
        """The operator's reward services by name; UserMistake names the file, the endpoint, the field."""
        if self.endpoints_file is None:
            return {}
        from assay.endpoint_settings import read_endpoints

        return read_endpoints(self.endpoints_file.expanduser())

    def opened_home(self) -> Home:
        """``ASSAY_HOME``, made private where it is new; UserMistake where it cannot be used."""
        try:
            make_private(self.home)
            home = Home(self.home, self.score_store)
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
                    f"ASSAY_HOME: {folder} is another user's, who alone may use it. Set ASSAY_HOME to a "
                    "folder of your own; to share scores, keep them on S3 (ASSAY_SCORE_STORE)"
                )
        return home
