"""Prefect's form shows what people fill in, in its own words, and gives the options of the command line."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from assay.config.evaluate_options import EvaluateOptions
from assay.config.options import Choice, RunOptions
from assay.config.verify_options import VerifyOptions

KINDS: list[type[Choice]] = [RunOptions, VerifyOptions, EvaluateOptions]
REQUIRED = {"input": ["data/new"], "output": "results/first"}


def fields(kind: type[BaseModel]) -> dict[str, Any]:
    """All fields of the form, those of its group too."""
    shown = dict(kind.model_json_schema()["properties"])
    return {**shown, **shown.pop("advanced")["properties"]}


def test_what_most_people_fill_in_comes_first_and_the_rest_is_a_group() -> None:
    shown = RunOptions.model_json_schema()["properties"]
    assert list(shown) == ["input", "output", "model", "keep", "export", "dry_run", "advanced"]
    assert [field["position"] for field in shown.values()] == list(range(len(shown)))
    group = shown["advanced"]["properties"]
    assert [field["position"] for field in group.values()] == list(range(len(group)))
    # A deployment refuses these two.
    assert RunOptions.model_fields.keys() - fields(RunOptions).keys() == {"push_to_hub", "public"}


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_has_an_empty_number_or_speaks_of_the_command_line(kind: type[Choice]) -> None:
    for name, field in fields(kind).items():
        # One name, or several with names of their own.
        assert "anyOf" not in field or name == "model", name
        assert {"type": "null"} not in field.get("anyOf", [])
        # Prefect's pages would call them by Python's types.
        assert [kind["title"] for kind in field.get("anyOf", [])] in ([], ["one", "several"])
        assert not re.search(r"--\w|`assay|docs/|Default:|s3://", field["description"]), field["description"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_form_shows_unchanged_is_the_defaults(kind: type[Choice]) -> None:
    required = {"input": ["a"], "output": "b", "model": "c", "benchmark": "preferences"}
    front = {name: required[name] for name in kind.model_json_schema()["required"]}
    group = kind.model_json_schema()["properties"]["advanced"]
    fields_of_the_group = group["properties"].items()
    untouched = {name: field["default"] for name, field in fields_of_the_group if "default" in field}
    jsonschema.validate({**front, "advanced": untouched}, kind.model_json_schema())
    assert kind.model_validate({**front, "advanced": untouched}) == kind.model_validate(front)


@pytest.mark.parametrize(
    ("advanced", "meant"),
    [
        ({"limit": 5}, {"limit": 5}),
        ({"limit": 0}, {"limit": None}),
        ({"dtype": "auto"}, {"dtype": None}),
        ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"add_bos": "no"}, {"add_bos": False}),
        ({"add_bos": "auto"}, {"add_bos": None}),
        ({"add_bos": False}, {"add_bos": False}),
        ({"min_margin": "0"}, {"min_margin": 0.0}),
        ({"min_margin": "-0.5"}, {"min_margin": -0.5}),
        ({"min_margin": ""}, {"min_margin": None}),
        ({"revision": ""}, {"revision": None}),
        # Not left open: 0 and auto are values of these.
        ({"seed": 0, "format": "auto", "strict": False}, {"seed": 0, "format": "auto", "strict": False}),
    ],
)
def test_the_group_gives_what_the_command_line_gives(
    advanced: dict[str, object], meant: dict[str, object]
) -> None:
    options = RunOptions.model_validate({**REQUIRED, "advanced": advanced})
    assert options == RunOptions.model_validate(REQUIRED | meant)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"advanced": {"limt": 5}}, "limt"),
        ({"advanced": 5}, "advanced should hold options by name"),
        ({"limit": 4, "advanced": {"limit": 5}}, "limit is given twice"),
        ({"limit": 0}, "greater than or equal to 1"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RunOptions.model_validate(REQUIRED | given)


def test_what_cannot_be_left_open_is_not() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        VerifyOptions.model_validate({"model": "starter", "advanced": {"workers": 0}})


def test_programs_and_schedules_may_give_all_options_side_by_side() -> None:
    flat = {**REQUIRED, "limit": 5, "release": True}
    jsonschema.validate(flat, RunOptions.model_json_schema())
    assert RunOptions.model_validate(flat).release
