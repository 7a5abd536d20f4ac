"""What a run may choose.

``RunOptions`` is the one definition of a run's options: the command line, a ``--config`` file and the form
in Prefect's UI are made from its fields. What every command may choose of its model is defined once, in
``ModelChoice`` and ``ScoringChoice``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

from assay.config.yaml_text import NotYAML, parsed_yaml, shown
from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.rewards.families import ReadAt
from assay.rewards.options import Dtype, ModelOptions, OverLength
from assay.rewards.scalar import parse_factors
from assay.storage.regular import read_regular

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
    from assay.read.formats import FORMATS

    return ["auto", *FORMATS]


def _export_names() -> list[str]:
    from assay.export import EXPORTS

    return list(EXPORTS)


def _default_exports() -> list[str]:
    from assay.export import DEFAULT_EXPORTS

    return list(DEFAULT_EXPORTS)


def _with_default_exports(schema: dict[str, Any]) -> None:
    """Name the default in Prefect's form, which a factory leaves out."""
    schema["default"] = _default_exports()


def family_names() -> list[str]:
    """The names of the families, for ``--family``."""
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


#: What a deployment takes for a model.
MODEL_IN_FORM = "A model by its name in the catalog, or in the operator's lists of folders and of services."
#: What --model takes, on a machine where paths may be named.
MODEL = (
    "A model of the catalog by name, a Hugging Face id (owner/name), the folder of one on this machine, or a "
    "service of the operator's list."
)

ModelName = Annotated[
    str,
    Field(
        title="Reward model",
        description=MODEL,
        json_schema_extra=in_form(MODEL_IN_FORM),
        min_length=1,
    ),
    CommandLine(_MODEL, "NAME_OR_PATH"),
]


class Choice(BaseModel):
    """Options that somebody chooses. What is unknown is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=in_this_order)


class ModelChoice(Choice):
    """Which model, and how it is read: of every command that uses one."""

    model: ModelName
    revision: Annotated[
        str | None,
        Field(
            title="Revision",
            description="Branch, tag or commit of a model on the Hub; unless given, its main branch.",
        ),
        CommandLine(_MODEL, "COMMIT"),
    ] = None
    dtype: Annotated[
        Dtype | None,
        Field(
            title="Number format",
            description="What the model computes in; unless given, what its card says, or float32.",
        ),
        CommandLine(_MODEL),
    ] = None
    family: Annotated[
        Annotated[str, Chosen(family_names)] | None,
        Field(
            title="Family",
            description="How the model is read where neither the catalog nor its architecture says so: a "
            "*ForCausalLM whose score is the logit of vocabulary id 0 is of the family first-token-logit.",
        ),
        CommandLine(_MODEL, "NAME"),
    ] = None
    read_at: Annotated[
        ReadAt | None,
        Field(
            title="Read at",
            description="Where a *ForSequenceClassification is read whose template ends in its padding "
            "token: at the last token, or where transformers' own head reads it, before the padding; unless "
            "given, at the last token, and the run says so.",
        ),
        CommandLine(_MODEL),
    ] = None
    add_bos: Annotated[
        bool | None,
        Field(
            title="Begin with BOS",
            description="Begin a conversation with the token that the tokenizer puts before a text, as "
            "tokenizer(text) does, where the template writes none; unless given, as the model's card does, "
            "or not, and the run says so.",
        ),
        CommandLine(_MODEL),
    ] = None
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

    def of_the_model(self) -> ModelOptions:
        """What is chosen of the model. ``UserMistake`` where that is no option's value."""
        return ModelOptions(
            dtype=self.dtype,
            revision=self.revision,
            family=self.family,
            read_at=self.read_at,
            add_bos=self.add_bos,
            attributes=tuple(self.attributes),
        )


class ScoringChoice(ModelChoice):
    """What is chosen of a model that scores data: of every command that does more than to look at it."""

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
        OverLength,
        Field(
            title="Over-length turns",
            description="What becomes of a turn beyond the model's token limit: set aside, or scored "
            "without its oldest tokens.",
        ),
        CommandLine(_MODEL),
    ] = "quarantine"

    def of_the_model(self) -> ModelOptions:
        """What is chosen of the model. ``UserMistake`` for weights that are not written as they should be."""
        return replace(
            super().of_the_model(),
            factors=parse_factors(self.weights) if self.weights else None,
            max_tokens=self.max_tokens,
            over_length=self.over_length,
        )


class _DataChoice(Choice):
    """What goes in and comes out of a run."""

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
            description="Files to write, each for the trainers that load it; docs/results.md describes them.",
            min_length=1,
            default_factory=_default_exports,
            json_schema_extra=_with_default_exports,
        ),
        CommandLine(_DATA),
    ]


# Fields come in the order of the bases from the right: data, then the model, then the rest.
class RunOptions(ScoringChoice, _DataChoice):
    """What one run of ``flows.curate`` is asked to do."""

    model: ModelName = "starter"
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
        raise UserMistake(f"{where} {shown(found['input'])}: {complaint(found['msg'])}") from error


def complaint(message: str) -> str:
    """Pydantic's sentence as part of ours."""
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return (message[:1].lower() + message[1:]).replace(", unable to parse string as an integer", "")
