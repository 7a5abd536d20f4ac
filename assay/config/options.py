"""The options of a run.

``RunOptions`` defines them once. The command line, a ``--config`` file and the form in Prefect's UI are made
from its fields. The options for a model, which several commands share, are in ``ModelChoice`` and
``ScoringChoice``; those for one or several models, in ``ModelsChoice``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from assay.config.form import in_two_groups, unfolded
from assay.config.several_models import ChosenModel, is_for_one_model, named_models, options_by_model
from assay.config.yaml_text import NotYAML, parsed_yaml, shown
from assay.core.errors import UserMistake
from assay.core.text import did_you_mean
from assay.export.numbered import parse_shard_size
from assay.export.pairs import PairChoice, PairWay
from assay.export.splits import Split, parse_splits
from assay.rewards.families import ReadAt
from assay.rewards.options import Dtype, ModelOptions, OverLength
from assay.rewards.scalar import parse_factors
from assay.select.kinds import Dedup, OnFail, Over, Quota
from assay.storage.regular import read_regular

Options = TypeVar("Options", bound=BaseModel)


#: The largest number that an option takes.
MOST = 10**12


@dataclass(frozen=True, slots=True)
class CommandLine:
    """How an option looks on the command line. It is part of a field's annotation, but of no schema."""

    group: str
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Allows the names in a table. ``names`` imports the table only when it is needed."""

    names: Callable[[], Sequence[str]]
    listed_by: str | None = None
    """The command that lists them, where they are too many for the help of another; a form lists them all."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse every other name, and suggest the nearest one."""
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The names as an ``enum``, which Prefect's form shows as a list to choose from."""
        return {**handler(schema), "enum": list(self.names())}

    def _known(self, name: str) -> str:
        names = self.names()
        if name not in names:
            known = f"one of {', '.join(names)}"
            if self.listed_by is not None:
                known = f"one of those that `{self.listed_by}` lists"
            raise ValueError(f"should be {known}{did_you_mean(name, names)}")
        return name


def _format_names() -> list[str]:
    from assay.read.formats import FORMATS

    return ["auto", *FORMATS]


def _export_names() -> list[str]:
    from assay.export import EXPORTS

    return list(EXPORTS)


def catalog_names() -> list[str]:
    """The models of the catalog that a folder may hold, for ``--as``."""
    from assay.rewards.catalog import CATALOG

    return [name for name, entry in CATALOG.items() if not entry.service_only and name == entry.source]


def family_names() -> list[str]:
    """The names of the families, for ``--family``."""
    from assay.rewards.families import FAMILIES

    return list(FAMILIES)


def _listed(value: object) -> object:
    """A list of one for a single string, as in ``input: chats.jsonl``."""
    return [value] if isinstance(value, str) else value


Listed = BeforeValidator(_listed)

_DATA = "what goes in and comes out"
_MODEL = "the reward model"
_CHOICE = "what is kept"
_PAIRS = "pairs for preference trainers"
_FILES = "how files are divided and shared"
_WORK = "how the run works"


def in_form(description: str) -> dict[str, Any]:
    """A field's description for Prefect's form, where it differs from the command line's help."""
    return {"description": description}


#: The description of ``model`` for a deployment.
MODEL_IN_FORM = "A model by its name in the catalog, or in the operator's lists of folders and of services."
#: The description of ``--model`` on the command line, where a path may be named.
MODEL = (
    "A model of the catalog by name, a Hugging Face id (owner/name), the folder of one on this machine, or a "
    "service of the operator's list."
)

InputNames = Annotated[
    list[str],
    Listed,
    Field(
        title="Inputs",
        description="What to read: files, folders or globs, on disk, on S3 (s3://BUCKET/…) or on the Hub "
        "(hf://datasets/OWNER/NAME). Names end in .jsonl, .ndjson, .json, .csv, .tsv (also with .gz, "
        ".zst or .zstd), .parquet, .arrow or .feather.",
        json_schema_extra=in_form(
            "What to read: files, folders or globs below a folder that the operator opened, such as "
            "data/new/*.jsonl. Names end in .jsonl, .ndjson, .json, .csv, .tsv (also with .gz, .zst or "
            ".zstd), .parquet, .arrow or .feather."
        ),
        min_length=1,
    ),
    CommandLine(_DATA, "PATH_OR_GLOB"),
]
InputFormat = Annotated[
    str,
    Chosen(_format_names),
    Field(title="Input format", description="Format of the inputs; auto recognises it by their content."),
    CommandLine(_DATA, "NAME"),
]
FieldNames = Annotated[
    list[str],
    Listed,
    Field(
        title="Names of fields",
        description="Read a field of the input under a name that Assay knows, such as problem=prompt or "
        "final=response. With speaker=role and text=content, a field of a message.",
    ),
    CommandLine(_DATA, "NAME=KNOWN"),
]
SpeakerNames = Annotated[
    list[str],
    Listed,
    Field(
        title="Names of speakers",
        description="Read a speaker as system, user, assistant or tool, such as customer=user.",
    ),
    CommandLine(_DATA, "NAME=ROLE"),
]
WorkerCount = Annotated[
    int | None,
    Field(
        title="Workers",
        description="Processes that score. Default: one per GPU, or one per CPU core as far as memory "
        "holds the models.",
        ge=1,
        le=MOST,
    ),
    CommandLine(_WORK, "N"),
]

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


def _as_a_form(schema: dict[str, Any], kind: type[Choice]) -> None:
    """Make the schema of options that of their form. Called by pydantic, which takes it so."""
    schema["properties"] = in_two_groups(schema["properties"], kind.in_front, kind.hidden)
    # It names a command.
    schema.pop("description", None)
    # Programs and schedules may give all options side by side. An unknown one is refused with a suggestion.
    schema["additionalProperties"] = True


class Choice(BaseModel):
    """Options that a user chooses. An unknown option is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_as_a_form)

    in_front: ClassVar[tuple[str, ...]] = ()
    """The fields that a form shows first; the others are in a group. Empty: there is no group."""
    hidden: ClassVar[frozenset[str]] = frozenset()
    """The fields that no form has, because a deployment refuses them."""

    @model_validator(mode="before")
    @classmethod
    def _unfolded(cls, given: object) -> object:
        return unfolded(given, cls)


_REVISION = Field(
    title="Revision", description="Branch, tag or commit of a model on the Hub. Default: its main branch."
)
_DTYPE = Field(
    title="Number format",
    description="The numbers that the model computes with. Default: its card's, or else float32.",
)
_AS = Field(
    title="Known as",
    description="The published model that a folder holds, by its name in the catalog, such as "
    "nvidia/Qwen-2.5-Nemotron-32B-Reward. What its card says is then known of it.",
)
_FAMILY = Field(
    title="Family",
    description="How to read the model, where neither the catalog nor its architecture says it. "
    "first-token-logit is for a *ForCausalLM whose score is the logit of vocabulary id 0.",
)
_READ_AT = Field(
    title="Read at",
    description="Where to read a *ForSequenceClassification whose template ends in its padding "
    "token: at the last token, or before the padding, as transformers' own head does. Default: at "
    "the last token, and the run reports it.",
)
_MAX_TOKENS = Field(
    title="Longest turn",
    description="The most tokens through a turn that the model is shown. Default: its own limit.",
)
_OVER_LENGTH = Field(
    title="Over-length turns",
    description="What to do with a turn beyond the model's token limit: quarantine it, or score it "
    "without its oldest tokens.",
)
_ADD_BOS = Field(
    title="Begin with BOS",
    description="Begin a conversation with the tokenizer's BOS token, as tokenizer(text) does, where "
    "the template writes none. Default: as the model's card does; without a card, no BOS, and the "
    "run reports it.",
)
_ATTRIBUTES = Field(
    title="Names of the outputs",
    description="What each output of the model rates, in order, where its config.json does not say it.",
)
_HIDE_REASONING = Field(
    title="Hide reasoning",
    description="Rate answers without the reasoning before them: a message's reasoning_content or "
    "thinking, or <think>…</think> at the beginning of an answer. Default: the model is shown what "
    "its chat template writes. The results keep the reasoning.",
    json_schema_extra=in_form(
        "Rate answers without the reasoning before them: a message's reasoning_content or thinking, or what "
        "stands between think tags at the beginning of an answer. Off: the model is shown what its chat "
        "template writes. The results keep the reasoning."
    ),
)
_WEIGHTS = Field(
    title="Weights",
    description="Compute weighted_reward from the attributes, with weights such as helpfulness=0.65. "
    "Default: the published weights, where there are any.",
)
_Tokens = Annotated[int, Field(ge=1, le=MOST)]
_Published = Annotated[str, Chosen(catalog_names, listed_by="assay models")]
_Family = Annotated[str, Chosen(family_names)]


class ModelChoice(Choice):
    """Which model, and how to read it: for every command that uses one."""

    model: ModelName
    revision: Annotated[str | None, _REVISION, CommandLine(_MODEL, "COMMIT")] = None
    dtype: Annotated[Dtype | None, _DTYPE, CommandLine(_MODEL)] = None
    as_: Annotated[_Published | None, _AS, CommandLine(_MODEL, "NAME")] = None
    family: Annotated[_Family | None, _FAMILY, CommandLine(_MODEL, "NAME")] = None
    read_at: Annotated[ReadAt | None, _READ_AT, CommandLine(_MODEL)] = None
    add_bos: Annotated[bool | None, _ADD_BOS, CommandLine(_MODEL)] = None
    attributes: Annotated[list[str], Listed, _ATTRIBUTES, CommandLine(_MODEL, "NAME")] = []
    hide_reasoning: Annotated[bool, _HIDE_REASONING, CommandLine(_MODEL)] = False

    def of_the_model(self) -> ModelOptions:
        """The choices as the model's options. ``UserMistake`` for a value that no option takes."""
        return ModelOptions(
            dtype=self.dtype,
            revision=self.revision,
            known_as=self.as_,
            family=self.family,
            read_at=self.read_at,
            add_bos=self.add_bos,
            attributes=tuple(self.attributes),
        )


class ScoringChoice(ModelChoice):
    """Options for a model that scores data: for every command that does so."""

    weights: Annotated[list[str], Listed, _WEIGHTS, CommandLine(_MODEL, "NAME=NUMBER")] = []
    max_tokens: Annotated[_Tokens | None, _MAX_TOKENS, CommandLine(_MODEL, "N")] = None
    over_length: Annotated[OverLength, _OVER_LENGTH, CommandLine(_MODEL)] = "quarantine"

    def of_the_model(self) -> ModelOptions:
        """The choices as the model's options. ``UserMistake`` for weights that are not NAME=NUMBER."""
        return replace(
            super().of_the_model(),
            factors=parse_factors(self.weights) if self.weights else None,
            max_tokens=self.max_tokens,
            over_length=self.over_length,
        )


def _for_models(value: object) -> object:
    """Several values for one model: the last. One that names its model: a list of one."""
    if isinstance(value, str) and is_for_one_model(value):
        return [value]
    if isinstance(value, list) and value and not any(map(is_for_one_model, map(str, value))):
        return value[-1]
    return value


def _models(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


#: One value for all models, or values that name the model that they are for.
_ForModels = BeforeValidator(_for_models)


ModelNames = Annotated[
    Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)],
    BeforeValidator(_models),
    Field(
        title="Reward model",
        description=f"{MODEL} Several models each have a name of their own, as in judge=NAME_OR_PATH.",
        json_schema_extra=in_form(
            f"{MODEL_IN_FORM} Several models each have a name of their own, as in judge=NAME."
        ),
    ),
    CommandLine(_MODEL, "NAME_OR_PATH"),
]


class ModelsChoice(Choice):
    """One model or several, and how to read each: what ``ScoringChoice`` is for one."""

    model: ModelNames
    revision: Annotated[str | list[str] | None, _ForModels, _REVISION, CommandLine(_MODEL, "COMMIT")] = None
    dtype: Annotated[Dtype | list[str] | None, _ForModels, _DTYPE, CommandLine(_MODEL)] = None
    as_: Annotated[_Published | list[str] | None, _ForModels, _AS, CommandLine(_MODEL, "NAME")] = None
    family: Annotated[_Family | list[str] | None, _ForModels, _FAMILY, CommandLine(_MODEL, "NAME")] = None
    read_at: Annotated[ReadAt | list[str] | None, _ForModels, _READ_AT, CommandLine(_MODEL)] = None
    add_bos: Annotated[bool | None, _ADD_BOS, CommandLine(_MODEL)] = None
    attributes: Annotated[list[str], Listed, _ATTRIBUTES, CommandLine(_MODEL, "NAME")] = []
    hide_reasoning: Annotated[bool, _HIDE_REASONING, CommandLine(_MODEL)] = False
    weights: Annotated[list[str], Listed, _WEIGHTS, CommandLine(_MODEL, "NAME=NUMBER")] = []
    max_tokens: Annotated[_Tokens | list[str] | None, _ForModels, _MAX_TOKENS, CommandLine(_MODEL, "N")] = (
        None
    )
    over_length: Annotated[OverLength | list[str], _ForModels, _OVER_LENGTH, CommandLine(_MODEL)] = (
        "quarantine"
    )

    def chosen_models(self) -> tuple[ChosenModel, ...]:
        """The models in order. ``UserMistake`` for a name or a value that none takes."""
        named = named_models([self.model] if isinstance(self.model, str) else self.model)
        given = {
            option_name(name): getattr(self, name) for name in ScoringChoice.model_fields if name != "model"
        }
        found = []
        for alias, of_one in options_by_model(list(named), given).items():
            typed: dict[str, object] = {"model": named[alias]}
            for name, info in ScoringChoice.model_fields.items():
                value = of_one.get(option_name(name))
                if isinstance(value, list) and get_origin(info.annotation) is not list:
                    value = value[-1] if value else info.default
                if name != "model":
                    typed[name] = value
            choice = options_from(ScoringChoice, typed=typed)
            found.append(ChosenModel(alias, named[alias], choice.of_the_model()))
        return tuple(found)


class _DataChoice(Choice):
    """The inputs and the output of a run."""

    input: InputNames
    output: Annotated[
        str,
        Field(
            title="Output folder",
            description="Folder for the results. Only a run that finishes replaces it, and it replaces all "
            "of it.",
            json_schema_extra=in_form(
                "Folder for the results, below one that the operator opened, such as results/first. {day} "
                "stands for the day of the run. Only a run that finishes replaces it, and it replaces all of "
                "it."
            ),
            min_length=1,
        ),
        CommandLine(_DATA, "DIR"),
    ]
    release: Annotated[
        bool,
        Field(
            title="Release what is new",
            description="Write a release of the input files that no earlier release holds, into a dated "
            "folder below the output folder. With nothing new, write nothing.",
        ),
        CommandLine(_DATA),
    ] = False
    format: InputFormat = "auto"
    map: FieldNames = []
    map_role: SpeakerNames = []
    limit: Annotated[
        int | None,
        Field(
            title="Limit",
            description="Take the first N records only.",
            json_schema_extra=in_form("Take so many records from the beginning. 0: all."),
            ge=1,
            le=MOST,
        ),
        CommandLine(_DATA, "N"),
    ] = None
    export: Annotated[
        list[Annotated[str, Chosen(_export_names)]],
        Listed,
        Field(
            title="Exports",
            description="Files to write, each for the trainer that loads it; `assay exports` lists them, "
            "docs/results.md describes them. Default: messages, and rows labelled 0-4 where the model rates "
            "such attributes.",
            json_schema_extra=in_form(
                "Files to write, each for the trainer that loads it. Empty: messages, and rows labelled 0-4 "
                "where the model rates such attributes."
            ),
        ),
        CommandLine(_DATA, "NAME"),
    ] = []
    verify_inputs: Annotated[
        bool,
        Field(
            title="Verify inputs",
            description="Read every input again to see whether its content changed. Default: a file whose "
            "size, times and inode are those of an earlier run is taken to be the same.",
        ),
        CommandLine(_DATA),
    ] = False


# Pydantic orders the fields by the bases from right to left: data, then the model, then the rest.
class RunOptions(ModelsChoice, _DataChoice):
    """The options of one run of ``assay curate``."""

    in_front: ClassVar[tuple[str, ...]] = ("input", "output", "model", "keep", "export", "dry_run")
    hidden: ClassVar[frozenset[str]] = frozenset({"push_to_hub", "public"})

    model: ModelNames = "starter"
    keep: Annotated[
        list[str],
        Listed,
        Field(
            title="Rules",
            description="Keep a record whose last turn satisfies this rule, such as 'helpfulness >= 2 and "
            "rank(helpfulness) == 1'. If there are several, all must hold; docs/rules.md has all that a rule "
            "can say.",
            json_schema_extra=in_form(
                "Keep a record whose last turn satisfies this rule, such as 'helpfulness >= 2 and "
                "rank(helpfulness) == 1'. If there are several, all must hold."
            ),
        ),
        CommandLine(_CHOICE, "RULE"),
    ] = []
    group: Annotated[
        str | None,
        Field(
            title="Group",
            description="A field of the input row whose equal values make a group, such as row.prompt_id. "
            "Default: equal messages before a turn.",
            min_length=1,
        ),
        CommandLine(_CHOICE, "row.FIELD"),
    ] = None
    on_fail: Annotated[
        OnFail,
        Field(
            title="A turn that fails",
            description="What a turn that fails a rule costs: drop its record, truncate the record before "
            "that turn, or mask the turn, so that it is context and not trained on. With truncate and mask, "
            "rules are asked at every turn.",
        ),
        CommandLine(_CHOICE),
    ] = "drop"
    target: Annotated[
        str | None,
        Field(
            title="Target",
            description="Keep so many of the records that pass the rules, or such a share (20%), the best "
            "by the order that is chosen beside it.",
            min_length=1,
        ),
        CommandLine(_CHOICE, "N_OR_PERCENT"),
    ] = None
    by: Annotated[
        str | None,
        Field(
            title="Order",
            description="What is best, for the target: the largest of this, such as 'mean(helpfulness)'. "
            "Default: the model's one number.",
            min_length=1,
        ),
        CommandLine(_CHOICE, "EXPRESSION"),
    ] = None
    per: Annotated[
        str | None,
        Field(
            title="Parts",
            description="A column, such as row.lang: each of its values has a part of the target.",
            min_length=1,
        ),
        CommandLine(_CHOICE, "COLUMN"),
    ] = None
    quota: Annotated[
        Quota | None,
        Field(
            title="Size of the parts",
            description="Parts as large as what is left of each value, or equal ones. Default: proportional.",
        ),
        CommandLine(_CHOICE),
    ] = None
    dedup: Annotated[
        Dedup | None,
        Field(
            title="Duplicates",
            description="Keep one of the records that say the same, exactly or nearly: the best by the order "
            "that is chosen, or the first. Before a target is met.",
        ),
        CommandLine(_CHOICE),
    ] = None
    dedup_over: Annotated[
        Over,
        Field(
            title="What is compared",
            description="Whether records say the same: their last answer, the prompt before it, or both.",
        ),
        CommandLine(_CHOICE),
    ] = "whole"
    near: Annotated[
        float,
        Field(
            title="Nearness",
            description="The share of runs of three words that nearly equal texts have in common.",
            gt=0,
            le=1,
            allow_inf_nan=False,
        ),
        CommandLine(_CHOICE, "NUMBER"),
    ] = 0.8
    decontaminate: Annotated[
        list[str],
        Listed,
        Field(
            title="Evaluation files",
            description="Drop records that share thirteen words in a row with these files, or globs: JSON "
            "lines or text.",
        ),
        CommandLine(_CHOICE, "PATH_OR_GLOB"),
    ] = []
    allow_cross_prompt: Annotated[
        bool,
        Field(
            title="Compare across prompts",
            description="Allow a threshold on a scalar reward, and an order by it, although such a reward "
            "only compares answers to the same prompt.",
        ),
        CommandLine(_CHOICE),
    ] = False
    strict: Annotated[
        bool,
        Field(
            title="Strict",
            description="Stop at the first record that would be quarantined: before scoring if it cannot be "
            "read, before anything is written if one of its turns could not be scored.",
        ),
        CommandLine(_CHOICE),
    ] = False
    pairs: Annotated[
        PairWay,
        Field(
            title="Pairs",
            description="Which answers to a prompt preference exports pair: the best with the worst, or with "
            "the next best, every two, or what a person chose with what that person rejected. Answers that "
            "score alike are never paired by score.",
        ),
        CommandLine(_PAIRS),
    ] = "best-worst"
    min_margin: Annotated[
        float | None,
        Field(
            title="Least margin",
            description="Leave out pairs whose scores differ by less. With pairs as given, the margin is "
            "negative where the model prefers what the person rejected.",
            allow_inf_nan=False,
        ),
        CommandLine(_PAIRS, "NUMBER"),
    ] = None
    max_length_ratio: Annotated[
        float | None,
        Field(
            title="Greatest ratio of lengths",
            description="Leave out pairs of which one answer has more than this many times the characters of "
            "the other.",
            ge=1,
            allow_inf_nan=False,
        ),
        CommandLine(_PAIRS, "NUMBER"),
    ] = None
    pairs_per_prompt: Annotated[
        int | None,
        Field(
            title="Pairs per prompt",
            description="The most pairs of a prompt, those of the widest margin first. Default: all.",
            ge=1,
            le=MOST,
        ),
        CommandLine(_PAIRS, "N"),
    ] = None
    desirable: Annotated[
        list[str],
        Listed,
        Field(
            title="Desirable",
            description="A rule as of --keep, which says for KTO which answers are good ones where no person "
            "chose. All rules must hold. Both kinds are written; --keep decides which records are.",
            json_schema_extra=in_form(
                "A rule, like those above, which says for KTO which answers are good ones where no person "
                "chose. All rules must hold. Both kinds are written; Rules decide which records are."
            ),
        ),
        CommandLine(_PAIRS, "RULE"),
    ] = []
    split: Annotated[
        list[str],
        Listed,
        Field(
            title="Split",
            description="Divide every file by prompt, or by the group's field where one is named, as in "
            "val=0.05: a file for each share, and one for the rest (train). A prompt, or a group, is always "
            "on one side, and no row moves when the data grow. nemo-oasst divides OpenAssistant's trees as "
            "NeMo-Aligner does.",
        ),
        CommandLine(_FILES, "NAME=SHARE"),
    ] = []
    seed: Annotated[
        int,
        Field(title="Seed", description="Another number gives another split.", ge=0, le=MOST),
        CommandLine(_FILES, "N"),
    ] = 0
    shard_size: Annotated[
        str | None,
        Field(
            title="Size of a file",
            description="Write each export as numbered files of at most this size, such as 1GB or 500MB: "
            "messages-00000-of-00012.jsonl. Default: one file.",
        ),
        CommandLine(_FILES, "SIZE"),
    ] = None
    push_to_hub: Annotated[
        str | None,
        Field(
            title="Push to the Hub",
            description="Also put the exports and their card into this dataset on the Hugging Face Hub, in "
            "one commit. The token is in the environment variable that ASSAY_HUB_TOKEN_VARIABLE names.",
        ),
        CommandLine(_FILES, "OWNER/NAME"),
    ] = None
    public: Annotated[
        bool,
        Field(
            title="Public",
            description="Make a dataset that the push creates public. Without this it is private.",
        ),
        CommandLine(_FILES),
    ] = False
    report: Annotated[
        bool,
        Field(
            title="Report",
            description="Make report.html beside the results: a page that shows what was kept and why, how "
            "the scores are spread, and conversations to look at.",
        ),
        CommandLine(_FILES),
    ] = True
    compare: Annotated[
        str | None,
        Field(
            title="Compare with",
            description="Show in the report what is new, gone, newly kept and newly dropped since the run "
            "whose results are in this folder. Default: the results that the output folder holds.",
            json_schema_extra=in_form(
                "Show in the report what is new, gone, newly kept and newly dropped since the run whose "
                "results are in this folder, below one that the operator opened for results. Default: the "
                "results that the output folder holds."
            ),
            min_length=1,
        ),
        CommandLine(_FILES, "DIR"),
    ] = None
    workers: WorkerCount = None
    shard_tokens: Annotated[
        int | None,
        Field(
            title="Shard size",
            description="Estimated tokens per score shard. Default: work for 20 s to 2 min, estimated from "
            "the model's size.",
            ge=1,
            le=MOST,
        ),
        CommandLine(_WORK, "N"),
    ] = None
    stop_after: Annotated[
        Literal["convert", "score"] | None,
        Field(
            title="Stop after",
            description="End after this stage and write what there is so far: no rules, no exports.",
            json_schema_extra=in_form(
                "End after this stage and write what there is so far: no rules, no exports. auto: go on to "
                "the end."
            ),
        ),
        CommandLine(_WORK),
    ] = None
    preview: Annotated[
        bool,
        Field(
            title="Preview",
            description="Show what the rules would do with scores that are stored: how many records each "
            "drops, what other thresholds would keep, and what is nearest to the cut. Write nothing.",
        ),
        CommandLine(_CHOICE),
    ] = False
    dry_run: Annotated[
        bool,
        Field(
            title="Dry run",
            description="Convert, report what would be scored, and write nothing to the output folder.",
        ),
        CommandLine(_WORK),
    ] = False

    def pair_choice(self) -> PairChoice:
        """Which pairs preference exports hold."""
        return PairChoice(self.pairs, self.min_margin, self.max_length_ratio, self.pairs_per_prompt)

    def split_choice(self) -> Split | None:
        """How every file is divided; None: it is not. ``UserMistake`` for what is no split."""
        return parse_splits(self.split, self.seed, self.group)

    def shard_bytes(self) -> int | None:
        """The most bytes of a result file; None: any. ``UserMistake`` for what is no size."""
        return parse_shard_size(self.shard_size)


def as_command(options: BaseModel, program: str = "assay curate") -> str:
    """The command line that has these options, as a shell takes it, without those that are as by default."""
    words = [program]
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if value == field.get_default(call_default_factory=True, validated_data={}):
            continue
        option = option_name(name)
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option.removeprefix('--')}")
        else:
            # A value that begins with a dash would be taken for an option.
            values = list(map(str, value)) if isinstance(value, list) else [str(value)]
            plain = not any(one.startswith("-") for one in values)
            words += (
                [option, *map(shlex.quote, values)]
                if plain
                else [f"{option}={shlex.quote(one)}" for one in values]
            )
    return " ".join(words)


def option_name(field: str) -> str:
    """The field's option as it is typed: ``--shard-tokens``; of a field such as ``as_``, ``--as``."""
    return "--" + field.rstrip("_").replace("_", "-")


def read_config_file(path: str, kind: type[BaseModel]) -> dict[str, object]:
    """The options in a YAML file, by field; UserMistake names the file, and the line if it is known.

    A key is an option's name with ``-`` or ``_``.
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
        raise UserMistake(f"{path}: the config file has no options; write lines such as 'model: starter'")
    given: dict[str, object] = {}
    for key, value in data.items():
        field = key.replace("-", "_") if isinstance(key, str) else ""
        field = f"{field}_" if f"{field}_" in kind.model_fields else field
        if field not in kind.model_fields:
            raise UserMistake(
                f"{path}: unknown option {shown(key)}{did_you_mean(field, kind.model_fields)} "
                f"(options: {', '.join(name.rstrip('_') for name in kind.model_fields)})"
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
    """The options. What was ``typed`` overrides what the file gives; UserMistake names the source."""
    given = {**(filed or {}), **typed}
    for name, value in given.items():
        where = option_name(name) if name in typed else f"{config_file}: {name}"
        for word in value if isinstance(value, list) else [value]:
            if not isinstance(word, str):
                continue
            # Bytes of a command line that are not UTF-8 come as half surrogate pairs, as YAML's escapes can.
            if not word.isascii() and word != word.encode(errors="ignore").decode():
                raise UserMistake(f"{where} {shown(word)}: is not UTF-8. Rename the file")
            if "\0" in word:
                raise UserMistake(f"{where} {shown(word)}: holds a NUL, which no name may hold")
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
    """Pydantic's message, shortened to follow the option's name."""
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return (message[:1].lower() + message[1:]).replace(", unable to parse string as an integer", "")
