"""The options of ``verify``: the one definition for its command line, its form and its flow."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from assay.config.options import MODEL, MODEL_IN_FORM, CommandLine, ModelChoice, in_form

_MODEL = "the reward model"
_WORK = "what is done"


class VerifyOptions(ModelChoice):
    """The options of one run of ``assay verify``."""

    in_front: ClassVar[tuple[str, ...]] = ("model", "against", "record", "check")

    model: Annotated[
        str,
        Field(
            title="Reward model",
            description=f"{MODEL} May be given first, alone.",
            json_schema_extra=in_form(MODEL_IN_FORM),
            min_length=1,
        ),
        CommandLine(_MODEL, "MODEL"),
    ]
    against: Annotated[
        str | None,
        Field(
            title="Compare with",
            description="For a service: the same model on this machine, to compare the scores.",
            json_schema_extra=in_form(
                "For a service: the name of the same model on the worker's machine, to compare the scores."
            ),
        ),
        CommandLine(_MODEL, "MODEL"),
    ] = None
    workers: Annotated[
        int,
        Field(
            title="Workers",
            description="How many Dask workers to compare: started here, or the operator's.",
            ge=1,
        ),
        CommandLine(_WORK, "N"),
    ] = 2
    output: Annotated[
        str | None,
        Field(
            title="Output folder",
            description="Write the results to this folder: checks.json for programs, report.html for people.",
            json_schema_extra=in_form(
                "Write the results to this folder, below one that the operator opened for results: "
                "checks.json for programs, report.html for people."
            ),
            min_length=1,
        ),
        CommandLine(_WORK, "DIR"),
    ] = None
    report: Annotated[
        bool,
        Field(title="Report", description="Make report.html beside checks.json."),
        CommandLine(_WORK),
    ] = True
    record: Annotated[
        str | None,
        Field(
            title="Record golden rows",
            description="Do only this: write golden rows (conversations, their scores, and what made them) "
            "to a file.",
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
            description="Do only this: compare with golden rows that were recorded earlier or elsewhere.",
            json_schema_extra=in_form(
                "Do only this: compare with golden rows that were recorded earlier or elsewhere, in a file "
                "below a folder that the operator opened."
            ),
            min_length=1,
        ),
        CommandLine(_WORK, "FILE"),
    ] = None
