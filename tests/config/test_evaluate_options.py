"""The options of an evaluation: several models by name, and mistakes found before any work."""

from __future__ import annotations

import pytest

from assay.config.evaluate_options import EvaluateOptions
from assay.config.options import ScoringChoice, options_from
from assay.core.errors import UserMistake
from assay.evaluate.benchmarks import BENCHMARKS

REQUIRED: dict[str, object] = {"benchmark": "rm-bench", "input": ["a.json"], "output": "out"}


def options(**typed: object) -> EvaluateOptions:
    return options_from(EvaluateOptions, typed={**REQUIRED, **typed})


def refusal(**typed: object) -> str:
    with pytest.raises(UserMistake) as refused:
        options(**typed).check()
    return str(refused.value)


def test_models_and_scores_have_names() -> None:
    found = options(
        model=["judge=models/judge", "starter", "team/model"], scores=["old=a=b.jsonl", "new.csv"]
    )
    assert found.named_models() == {
        "judge": "models/judge",
        "starter": "starter",
        "team/model": "team/model",
    }
    assert found.named_scores() == {"old": "a=b.jsonl", "new.csv": "new.csv"}
    found.check()
    assert options(model="starter").named_models() == {"starter": "starter"}


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({}, "--model is required"),
        ({"model": ["a=x", "a=y"]}, "'a' is there already; write NAME=y"),
        ({"model": ["a=x"], "scores": ["a=y"]}, "--scores a: a model has that name"),
        ({"model": ["ensemble=x"]}, "ensemble is what all models together are called"),
        (
            {"model": ["a=x", "b=y"], "revision": "main"},
            "--revision: says what one model is, and there are 2",
        ),
        ({"scores": ["a.csv"], "starter_baseline": True}, "--starter-baseline: needs a --model beside it"),
        ({"benchmark": "rmbench"}, "did you mean 'rm-bench'?"),
    ],
)
def test_mistakes_are_named(typed: dict[str, object], words: str) -> None:
    assert words in refusal(**typed)


def test_the_options_of_a_model_are_those_of_curate() -> None:
    shared = set(ScoringChoice.model_fields) - {"model"}
    for name in shared:
        assert EvaluateOptions.model_fields[name].description == ScoringChoice.model_fields[name].description
    schema = EvaluateOptions.model_json_schema()
    assert schema["properties"]["benchmark"]["enum"] == list(BENCHMARKS)
    assert schema["required"] == ["benchmark", "input", "output"]
