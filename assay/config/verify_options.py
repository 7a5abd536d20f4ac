"""What a run of ``verify`` may choose: the one definition for its command line, its form and its flow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from assay.config.options import (
    MODEL_IN_FORM,
    AddBos,
    CommandLine,
    FamilyName,
    Listed,
    ReadAt,
    in_form,
    in_this_order,
)

_MODEL = "the reward model"
_WORK = "what is done"


class VerifyOptions(BaseModel):
    """What a run of ``flows.verify`` is asked to do."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=in_this_order)

    model: Annotated[
        str,
        Field(
            title="Reward model",
            description="A model of the catalog by name, a Hub id, a folder, or a service of the operator's "
            "list. May be given first, alone.",
            json_schema_extra=in_form(f"{MODEL_IN_FORM}."),
            min_length=1,
        ),
        CommandLine(_MODEL, "MODEL"),
    ]
    revision: Annotated[
        str | None,
        Field(title="Revision", description="Branch, tag or commit of a model on the Hub."),
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
            description="What each output rates, where config.json does not say.",
        ),
        CommandLine(_MODEL, "NAME"),
    ] = []
    against: Annotated[
        str | None,
        Field(
            title="Compare with",
            description="Of a service: the same model on this machine, whose scores are compared.",
            json_schema_extra=in_form(
                "Of a service: the same model on the worker's machine, by name, whose scores are compared."
            ),
        ),
        CommandLine(_MODEL, "MODEL"),
    ] = None
    workers: Annotated[
        int,
        Field(
            title="Workers",
            description="Dask workers whose scores are compared: started here, or the operator's.",
            ge=1,
        ),
        CommandLine(_WORK, "N"),
    ] = 2
    record: Annotated[
        str | None,
        Field(
            title="Record golden rows",
            description="Do only this: write golden rows to a file, which are conversations, their scores, "
            "and what made them.",
            json_schema_extra=in_form(
                "Do only this: write golden rows (conversations, their scores, and what made them) to a file "
                "below a folder that the operator opened for results, such as results/golden.json."
            ),
            min_length=1,
        ),
        CommandLine(_WORK, "FILE"),
    ] = None
    check: Annotated[
        str | None,
        Field(
            title="Check golden rows",
            description="Do only this: compare with golden rows that were recorded before, or elsewhere.",
            json_schema_extra=in_form(
                "Do only this: compare with golden rows that were recorded before, or elsewhere: a file "
                "below a folder that the operator opened."
            ),
            min_length=1,
        ),
        CommandLine(_WORK, "FILE"),
    ] = None
