"""The options of ``evaluate``: the one definition for its command line, its form and its flow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from assay.config.options import (
    MODEL,
    MODEL_IN_FORM,
    Choice,
    Chosen,
    CommandLine,
    FieldNames,
    InputFormat,
    InputNames,
    Listed,
    ScoringChoice,
    SpeakerNames,
    WorkerCount,
    in_form,
    option_name,
)
from assay.core.errors import UserMistake

_BENCHMARK = "what is asked"
_MODEL = "the reward model"
_DATA = "what goes in and comes out"
_SEVERAL = "Several: NAME=MODEL each, a short name for the tables."
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
#: Options that say what one model is.
_OF_ONE_MODEL = ("revision", "as_")


def _benchmark_names() -> list[str]:
    from assay.evaluate.benchmarks import BENCHMARKS

    return list(BENCHMARKS)


class _WhatIsAsked(Choice):
    """The benchmark, its rows, and where the results go."""

    benchmark: Annotated[
        str,
        Chosen(_benchmark_names),
        Field(
            title="Benchmark",
            description="Which rules make the figures. preferences: any data that says which answer is "
            "better. labels: answers that people rated.",
        ),
        CommandLine(_BENCHMARK, "NAME"),
    ]
    input: InputNames
    output: Annotated[
        str,
        Field(
            title="Output folder",
            description="Folder for evaluation.json, evaluation.md and report.html; new, or of an earlier "
            "evaluation.",
            json_schema_extra=in_form(
                "Folder for evaluation.json, evaluation.md and report.html, below one that the operator "
                "opened, such as results/judge."
            ),
            min_length=1,
        ),
        CommandLine(_DATA, "DIR"),
    ]
    format: InputFormat = "auto"
    map: FieldNames = Field(default_factory=list)
    map_role: SpeakerNames = Field(default_factory=list)
    scores: Annotated[
        list[str],
        Listed,
        Field(
            title="Recorded scores",
            description="Scores that a model gave the same rows elsewhere: an output file of JudgeBench or "
            "RM-Bench, scores.parquet of a run, or a CSV of ids and numbers. Beside models, or in their "
            "place. Several: NAME=FILE each.",
        ),
        CommandLine(_DATA, "[NAME=]FILE"),
    ] = Field(default_factory=list)


# Pydantic orders the fields by the bases from right to left: what is asked, then the model, then the rest.
class EvaluateOptions(ScoringChoice, _WhatIsAsked):
    """The options of one run of ``assay evaluate``."""

    in_front: ClassVar[tuple[str, ...]] = ("benchmark", "input", "output", "model", "scores")

    # Several, where other commands take one.
    model: Annotated[
        list[str],
        Listed,
        Field(
            title="Reward models",
            description=f"{MODEL} {_SEVERAL}",
            json_schema_extra=in_form(f"{MODEL_IN_FORM} {_SEVERAL}"),
        ),
        CommandLine(_MODEL, "[NAME=]MODEL"),
    ] = Field(default_factory=list)  # type: ignore[assignment]
    by: Annotated[
        str | None,
        Field(
            title="Compared by",
            description="The attribute that answers are compared by. Default: the model's one number, or "
            "helpfulness.",
        ),
        CommandLine(_MODEL, "ATTRIBUTE"),
    ] = None
    starter_baseline: Annotated[
        bool | None,
        Field(
            title="Starter as a baseline",
            description="Score with the starter model too, and show its figures beside the others. Default: "
            "where a model is scored, but not beside recorded scores alone.",
        ),
        CommandLine(_MODEL),
    ] = None
    workers: WorkerCount = None
    report: Annotated[
        bool,
        Field(
            title="Report",
            description="Make report.html beside the results: a page that shows how often each model is "
            "right, and what to doubt about it.",
        ),
        CommandLine(_DATA),
    ] = True

    def named_models(self) -> dict[str, str]:
        """The models by their names in the tables. UserMistake where a name or an option does not fit."""
        found = _named(self.model, "--model")
        if len(found) > 1:
            for field in _OF_ONE_MODEL:
                if getattr(self, field) is not None:
                    raise UserMistake(
                        f"{option_name(field)}: says what one model is, and there are {len(found)}. Evaluate "
                        "one at a time, or name them as an operator does (ASSAY_MODEL_FOLDERS, "
                        "ASSAY_MODEL_NAMES)"
                    )
        return found

    def named_scores(self) -> dict[str, str]:
        """The files of recorded scores by their names in the tables."""
        return _named(self.scores, "--scores")

    def check(self) -> None:
        """Nothing, or UserMistake where there is nothing to evaluate, or one name for two things."""
        models, scores = self.named_models(), self.named_scores()
        if not models and not scores:
            raise UserMistake("--model is required, or --scores with scores that are recorded; see --help")
        if twice := sorted(models.keys() & scores.keys()):
            raise UserMistake(f"--scores {twice[0]}: a model has that name; write NAME={scores[twice[0]]}")
        if self.starter_baseline and not models:
            raise UserMistake(
                "--starter-baseline: needs a --model beside it; name the starter as one of them"
            )


def _named(texts: Sequence[str], option: str) -> dict[str, str]:
    """What each name stands for: ``a=MODEL``, or the text for itself."""
    found: dict[str, str] = {}
    for text in texts:
        named = _NAMED.fullmatch(text)
        name, meant = (named[1], named[2]) if named else (text, text)
        if name == "ensemble":
            raise UserMistake(f"{option} {text!r}: ensemble is what all models together are called")
        if name in found:
            raise UserMistake(f"{option} {text!r}: {name!r} is there already; write NAME={meant}")
        found[name] = meant
    return found
