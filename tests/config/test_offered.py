"""A form offers what the operator has, and refuses the rest before there is a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from places import ROOT
from pydantic import BaseModel

from assay.config.evaluate_options import EvaluateOptions
from assay.config.offered import fitting, offered
from assay.config.options import RunOptions
from assay.config.settings import Settings
from assay.config.verify_options import VerifyOptions


@pytest.fixture
def settings() -> Settings:
    return Settings(
        data_roots={"chats": Path("/srv/chats"), "new-mail": "s3://team/mail"},
        output_roots={"out": Path("/srv/out")},
        model_folders={"judge": Path("/srv/judge")},
    )


def form(kind: type[BaseModel], settings: Settings) -> dict[str, Any]:
    schema = {"definitions": {kind.__name__: kind.model_json_schema()}, "properties": {}}
    made: dict[str, Any] = offered(schema, settings)["definitions"][kind.__name__]
    return made


GOOD: dict[str, object] = {"input": ["chats/new/*.jsonl"], "output": "out/first", "model": "starter"}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"input": ["chats", "new-mail/today"]},
        {"model": "judge"},
        {"model": ["strict=judge", "small=starter"]},
        {"model": "nvidia/Qwen-2.5-Nemotron-32B-Reward"},
        {"output": "out/{day}", "limit": 3},
    ],
)
def test_what_the_operator_has_is_taken(settings: Settings, changed: dict[str, object]) -> None:
    jsonschema.validate(GOOD | changed, form(RunOptions, settings))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"input": ["data/new"]}, "'data/new' does not match"),
        ({"input": ["chatsandmore"]}, "does not match"),
        ({"input": ["/etc/passwd"]}, "does not match"),
        ({"output": "results/first"}, "does not match"),
        ({"output": "out"}, "does not match"),
        ({"model": "http://169.254.169.254/"}, "is not one of"),
        ({"model": "strater"}, "is not one of"),
        ({"model": ["judge=starter", "small=strater"]}, "does not match"),
        ({"export": ["steerlmm"]}, "is not one of"),
    ],
)
def test_what_the_operator_has_not_is_refused(
    settings: Settings, changed: dict[str, object], said: str
) -> None:
    with pytest.raises(jsonschema.ValidationError, match=said):
        jsonschema.validate(GOOD | changed, form(RunOptions, settings))


def test_the_operators_own_models_come_first(settings: Settings) -> None:
    assert form(RunOptions, settings)["properties"]["model"]["anyOf"][0]["enum"][:2] == [
        "judge",
        "starter",
    ]


def test_files_beside_the_inputs_may_lie_in_either_kind_of_root_or_be_left_open(settings: Settings) -> None:
    verify = form(VerifyOptions, settings)
    for check in ("", "out/golden.json", "chats/golden.json"):
        jsonschema.validate({"model": "judge", "check": check, "against": "", "record": ""}, verify)
    for wrong in ({"check": "/etc/passwd"}, {"record": "chats/golden.json"}, {"against": "nobody"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"model": "judge", **wrong}, verify)
    evaluate = form(EvaluateOptions, settings)
    good = {**GOOD, "benchmark": "labels", "model": ["judge"], "scores": ["theirs=chats/scores.csv"]}
    jsonschema.validate(good, evaluate)


def test_several_models_are_taken_with_short_names(settings: Settings) -> None:
    evaluate = form(EvaluateOptions, settings)
    good = {**GOOD, "benchmark": "labels", "model": ["judge", "small=starter"]}
    jsonschema.validate(good, evaluate)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**good, "model": ["small=nobody"]}, evaluate)


def test_without_roots_paths_are_left_to_the_run() -> None:
    jsonschema.validate({**GOOD, "input": ["anything"]}, form(RunOptions, Settings(data_roots={})))


def test_defaults_and_examples_name_the_operators_roots(settings: Settings) -> None:
    asked = fitting(yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text()), settings)
    curate = asked["deployments"][0]
    assert curate["entrypoint"] == "flows/curate/flow.py:curate"
    for options in (curate["parameters"]["options"], curate["schedules"][0]["parameters"]["options"]):
        assert options["input"] == ["chats"]
        assert options["output"].startswith("out/")
        jsonschema.validate(options, form(RunOptions, settings))
    shown = form(RunOptions, settings)["properties"]
    assert "such as chats/new/*.jsonl" in shown["input"]["description"]
    assert "such as out/first" in shown["output"]["description"]


def test_a_root_that_has_the_usual_name_keeps_it() -> None:
    both = Settings(data_roots={"a": Path("/a"), "data": Path("/data")})
    assert fitting(["data/new", "results/x"], both) == ["data/new", "results/x"]
